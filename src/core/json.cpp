#include "core/json.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/field_error.h"
#include "core/file.h"
#include "core/utf8.h"

namespace quern {

using nlohmann::json;

namespace {

// Builds the tree without recursion while it counts depth, values and repeated keys.
class StrictBuilder : public nlohmann::json_sax<json> {
 public:
  StrictBuilder(const std::string& source, const JsonLimits& limits)
      : source_(source), limits_(limits) {}

  json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t& text) override {
    if (!std::isfinite(value)) fail("the number " + printable(text, 40) + " is out of range");
    return add(value);
  }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(json::object()); }
  bool start_array(size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (stack_.back()->contains(name)) fail("the key '" + printable(name, 80) + "' appears twice");
    key_ = std::move(name);
    return true;
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& failure) override {
    constexpr int kNumberOverflow = 406;  // the library's number for "1e999"
    if (failure.id == kNumberOverflow) {
      fail(fmt::format("has a number out of range at byte {}", position));
    }
    fail(fmt::format("is not valid JSON at byte {}", position));
  }

 private:
  [[noreturn]] void fail(const std::string& problem) const {
    throw_bad_input(source_ + ": " + problem);
  }
  json* place(json value) {
    if (++values_ > limits_.max_values) {
      fail(fmt::format("has more than {} values", limits_.max_values));
    }
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }
  bool add(json value) {
    place(std::move(value));
    return true;
  }
  bool open(json value) {
    if (static_cast<int>(stack_.size()) >= limits_.max_depth) {
      fail(fmt::format("is nested deeper than {} levels", limits_.max_depth));
    }
    stack_.push_back(place(std::move(value)));
    return true;
  }
  bool close() {
    stack_.pop_back();
    return true;
  }

  const std::string& source_;
  const JsonLimits& limits_;
  json root_;
  std::vector<json*> stack_;  // parents grow only through their last child: pointers stay valid
  std::string key_;
  size_t values_ = 0;
};

}  // namespace

struct Json::Document {
  json root;
  std::string source;
};

struct Json::Path {
  std::shared_ptr<const Path> parent;
  std::string key;  // empty for an array item
  size_t index;
};

Json::Json(std::shared_ptr<const Document> document, const json* node,
           std::shared_ptr<const Path> path)
    : document_(std::move(document)), node_(node), path_(std::move(path)) {}

Json Json::parse(std::string_view text, std::string source, const JsonLimits& limits) {
  if (is_lfs_pointer(text)) {
    throw_bad_input(source + ": is a Git LFS pointer, not the file itself",
                    "run 'git lfs pull' in the model's repository");
  }
  if (text.size() > limits.max_bytes) {
    throw_bad_input(fmt::format("{}: has {} bytes, at most {} are accepted", source, text.size(),
                                limits.max_bytes));
  }
  if (const size_t bad = utf8::first_invalid(text); bad != text.npos) {
    throw_bad_input(fmt::format("{}: is not valid UTF-8 at byte {}", source, bad));
  }
  // The library takes a NUL for the end of its input, and would not look at what follows.
  if (text.find('\0') != text.npos)
    throw_bad_input(source + ": is not valid JSON: it has a NUL byte");
  StrictBuilder builder(source, limits);
  if (text.starts_with("\xEF\xBB\xBF") || !json::sax_parse(text.begin(), text.end(), &builder)) {
    throw_bad_input(source + ": is not valid JSON");
  }
  return wrap(builder.take(), std::move(source));
}

Json Json::parse_file(const std::string& path, const JsonLimits& limits) {
  return parse(read_file(path, limits.max_bytes), path, limits);
}

Json Json::wrap(json tree, std::string source) {
  auto document = std::make_shared<Document>(Document{std::move(tree), std::move(source)});
  const json* root = &document->root;
  return Json(std::move(document), root, nullptr);
}

Json Json::child(const json* node, std::string key, size_t index) const {
  return Json(document_, node, std::make_shared<Path>(Path{path_, std::move(key), index}));
}

bool Json::is_null() const { return node_->is_null(); }
bool Json::is_object() const { return node_->is_object(); }
bool Json::is_array() const { return node_->is_array(); }
bool Json::is_string() const { return node_->is_string(); }
bool Json::is_number() const { return node_->is_number(); }
bool Json::is_integer() const { return node_->is_number_integer(); }
bool Json::is_bool() const { return node_->is_boolean(); }

const char* Json::type_name() const {
  if (is_null()) return "null";
  if (is_object()) return "an object";
  if (is_array()) return "an array";
  if (is_string()) return "a string";
  if (is_bool()) return "a boolean";
  return is_integer() ? "an integer" : "a number with a fraction";
}

std::string Json::where() const {
  std::vector<const Path*> parts;
  for (const Path* part = path_.get(); part != nullptr; part = part->parent.get()) {
    parts.push_back(part);
  }
  std::string text;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if ((*part)->key.empty()) {
      text += fmt::format("[{}]", (*part)->index);
    } else {
      if (!text.empty()) text += ".";
      text += printable((*part)->key, 80);
    }
  }
  return text.empty() ? document_->source : document_->source + ": " + text;
}

void Json::fail(const std::string& problem, std::string hint) const {
  throw_bad_field(where(), problem, std::move(hint));
}

int64_t Json::integer(int64_t min, int64_t max) const {
  if (!is_integer()) fail(fmt::format("is {}, expected an integer", type_name()));
  const bool too_large = node_->is_number_unsigned() &&
                         node_->get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()};
  const int64_t value = too_large ? 0 : node_->get<int64_t>();
  if (too_large || value < min || value > max) {
    fail(fmt::format("is {}, expected {} to {}", dump(*node_), min, max));
  }
  return value;
}

double Json::number(double min, double max) const {
  if (!is_number()) fail(fmt::format("is {}, expected a number", type_name()));
  const double value = node_->get<double>();
  if (!(value >= min && value <= max)) {
    fail(fmt::format("is {}, expected {} to {}", dump(*node_), min, max));
  }
  return value;
}

bool Json::boolean() const {
  if (!is_bool()) fail(fmt::format("is {}, expected true or false", type_name()));
  return node_->get<bool>();
}

const std::string& Json::string() const {
  if (!is_string()) fail(fmt::format("is {}, expected a string", type_name()));
  return node_->get_ref<const std::string&>();
}

size_t Json::size() const {
  if (!is_array() && !is_object()) fail(fmt::format("is {}, expected an array", type_name()));
  return node_->size();
}

Json Json::operator[](size_t index) const {
  if (!is_array()) fail(fmt::format("is {}, expected an array", type_name()));
  if (index >= node_->size()) fail(fmt::format("has {} items, expected more", node_->size()));
  return child(&(*node_)[index], {}, index);
}

std::vector<Json> Json::items() const {
  if (!is_array()) fail(fmt::format("is {}, expected an array", type_name()));
  std::vector<Json> out;
  out.reserve(node_->size());
  for (size_t i = 0; i < node_->size(); ++i) out.push_back(child(&(*node_)[i], {}, i));
  return out;
}

std::vector<std::pair<std::string, Json>> Json::members() const {
  if (!is_object()) fail(fmt::format("is {}, expected an object", type_name()));
  std::vector<std::pair<std::string, Json>> out;
  out.reserve(node_->size());
  for (auto it = node_->begin(); it != node_->end(); ++it) {
    out.emplace_back(it.key(), child(&it.value(), it.key(), 0));
  }
  return out;
}

std::optional<Json> Json::find(std::string_view key) const {
  if (!is_object()) fail(fmt::format("is {}, expected an object", type_name()));
  const auto it = node_->find(std::string(key));
  if (it == node_->end() || it->is_null()) return std::nullopt;
  return child(&*it, std::string(key), 0);
}

Json Json::at(std::string_view key) const {
  auto value = find(key);
  if (!value) {
    throw_missing_field(where(), key);
  }
  return *value;
}

int64_t Json::integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const {
  const auto value = find(key);
  return value ? value->integer(min, max) : fallback;
}

double Json::number_or(std::string_view key, double fallback, double min, double max) const {
  const auto value = find(key);
  return value ? value->number(min, max) : fallback;
}

bool Json::boolean_or(std::string_view key, bool fallback) const {
  const auto value = find(key);
  return value ? value->boolean() : fallback;
}

std::string Json::string_or(std::string_view key, std::string_view fallback) const {
  const auto value = find(key);
  return value ? value->string() : std::string(fallback);
}

void Json::only_keys(const std::vector<std::string_view>& known) const {
  if (!is_object()) fail(fmt::format("is {}, expected an object", type_name()));
  for (auto it = node_->begin(); it != node_->end(); ++it) {
    if (std::find(known.begin(), known.end(), it.key()) != known.end()) continue;
    const std::string guess = nearest(it.key(), known);
    fail(fmt::format("has the unknown key '{}'", printable(it.key(), 80)),
         guess.empty() ? "" : "did you mean '" + guess + "'?");
  }
}

std::string dump(const json& value, int indent) {
  return value.dump(indent, ' ', false, json::error_handler_t::replace);
}

std::string dump(const nlohmann::ordered_json& value, int indent) {
  return value.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace quern
