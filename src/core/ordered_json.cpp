#include "core/ordered_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/error.h"
#include "core/json_string.h"

namespace quern {
namespace {

// Builds the tree while nlohmann's parser reads, under the limits of the strict reader.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  Builder(std::string_view source, const JsonLimits& limits) : source_(source), limits_(limits) {}

  bool null() override { return put({}); }
  bool boolean(bool value) override { return put(OrderedJson::of_bool(value)); }
  bool number_integer(int64_t value) override {
    return put(OrderedJson::of_integer(fmt::format("{}", value)));
  }
  bool number_unsigned(uint64_t value) override {
    return put(OrderedJson::of_integer(fmt::format("{}", value)));
  }
  // Integers past 64 bits arrive here too, with their text.
  bool number_float(double value, const std::string& token) override {
    if (token.find_first_of(".eE") == std::string::npos) {
      return put(OrderedJson::of_integer(token));
    }
    return put(OrderedJson::of_float(value));
  }
  bool string(std::string& value) override { return put(OrderedJson::of_string(std::move(value))); }
  bool binary(nlohmann::json::binary_t&) override { return false; }
  bool start_object(size_t) override { return open(OrderedJson::Kind::Object); }
  bool start_array(size_t) override { return open(OrderedJson::Kind::Array); }
  bool key(std::string& name) override {
    count();
    if (!keys_.back().insert(name).second) {
      throw_bad_input(
          fmt::format("{}: the key '{}' stands twice in one object", source_, printable(name, 80)));
    }
    open_.back()->members.emplace_back(std::move(name), OrderedJson{});
    return true;
  }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    throw_bad_input(fmt::format("{}: is not JSON: byte {} is not expected", source_, position));
  }

  OrderedJson take() { return std::move(root_); }

 private:
  void count() {
    if (++values_ > limits_.max_values) {
      throw_bad_input(fmt::format("{}: has more than {} values", source_, limits_.max_values));
    }
  }
  OrderedJson& place() {
    if (open_.empty()) return root_;
    OrderedJson& parent = *open_.back();
    if (parent.is_object()) return parent.members.back().second;
    count();
    return parent.items.emplace_back();
  }
  bool put(OrderedJson value) {
    place() = std::move(value);
    return true;
  }
  bool open(OrderedJson::Kind kind) {
    if (static_cast<int>(open_.size()) >= limits_.max_depth) {
      throw_bad_input(
          fmt::format("{}: is nested deeper than {} levels", source_, limits_.max_depth));
    }
    OrderedJson& here = place();
    here.kind = kind;
    open_.push_back(&here);
    keys_.emplace_back();
    return true;
  }
  bool close() {
    open_.pop_back();
    keys_.pop_back();
    return true;
  }

  std::string source_;
  JsonLimits limits_;
  OrderedJson root_;
  // A container's address is stable while it is open: its siblings are only added after its end.
  std::vector<OrderedJson*> open_;
  std::vector<std::unordered_set<std::string>> keys_;
  size_t values_ = 0;
};

class Writer {
 public:
  explicit Writer(const PythonJson& style) : style_(style) {}

  void write(const OrderedJson& value, int level) {
    using Kind = OrderedJson::Kind;
    switch (value.kind) {
      case Kind::Null:
        out += "null";
        break;
      case Kind::Bool:
        out += value.boolean ? "true" : "false";
        break;
      case Kind::Integer:
        out += value.text;
        break;
      case Kind::Float:
        write_float(value.number);
        break;
      case Kind::String:
        append_json_string(out, value.text);
        break;
      case Kind::Array:
        write_items(value, level);
        break;
      case Kind::Object:
        write_members(value, level);
        break;
    }
  }

  std::string out;

 private:
  // json.dumps writes what is not finite as JavaScript names it.
  void write_float(double number) {
    if (std::isnan(number)) {
      out += "NaN";
    } else if (std::isinf(number)) {
      out += number < 0 ? "-Infinity" : "Infinity";
    } else {
      out += python_repr(number);
    }
  }
  void line(int level) {
    if (style_.indent < 0) return;
    out += '\n';
    out.append(static_cast<size_t>(style_.indent) * static_cast<size_t>(level), ' ');
  }
  // With an indent Python ends lines at the comma, without the space after it.
  std::string_view separator() const {
    if (style_.indent >= 0 && style_.item_separator == ", ") return ",";
    return style_.item_separator;
  }
  void write_items(const OrderedJson& value, int level) {
    out += '[';
    for (size_t i = 0; i < value.items.size(); ++i) {
      if (i > 0) out += separator();
      line(level + 1);
      write(value.items[i], level + 1);
    }
    if (!value.items.empty()) line(level);
    out += ']';
  }
  void write_members(const OrderedJson& value, int level) {
    std::vector<const OrderedJson::Member*> order;
    for (const auto& member : value.members) order.push_back(&member);
    if (style_.sort_keys) {  // bytes of UTF-8 sort as code points do
      std::ranges::sort(order, {},
                        [](const auto* member) { return std::string_view(member->first); });
    }
    out += '{';
    for (size_t i = 0; i < order.size(); ++i) {
      if (i > 0) out += separator();
      line(level + 1);
      append_json_string(out, order[i]->first);
      out += style_.key_separator;
      write(order[i]->second, level + 1);
    }
    if (!order.empty()) line(level);
    out += '}';
  }

  PythonJson style_;
};

}  // namespace

OrderedJson OrderedJson::parse(std::string_view text, std::string_view source,
                               const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    throw_bad_input(fmt::format("{}: is larger than {} bytes", source, limits.max_bytes));
  }
  // The library takes a NUL for the end of its input, and would not look at what follows.
  if (text.find('\0') != text.npos) {
    throw_bad_input(fmt::format("{}: is not valid JSON: it has a NUL byte", source));
  }
  Builder builder(source, limits);
  nlohmann::json::sax_parse(text, &builder);
  return builder.take();
}

OrderedJson OrderedJson::of_bool(bool value) { return {.kind = Kind::Bool, .boolean = value}; }

OrderedJson OrderedJson::of_integer(std::string digits) {
  return {.kind = Kind::Integer, .text = digits == "-0" ? "0" : std::move(digits)};
}

OrderedJson OrderedJson::of_float(double value) { return {.kind = Kind::Float, .number = value}; }

OrderedJson OrderedJson::of_string(std::string value) {
  return {.kind = Kind::String, .text = std::move(value)};
}

const OrderedJson* OrderedJson::find(std::string_view key) const noexcept {
  for (const auto& [name, value] : members) {
    if (name == key) return &value;
  }
  return nullptr;
}

void OrderedJson::set(std::string key, OrderedJson value) {
  kind = Kind::Object;
  for (auto& [name, old] : members) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  members.emplace_back(std::move(key), std::move(value));
}

std::string python_dumps(const OrderedJson& value, const PythonJson& style) {
  Writer writer(style);
  writer.write(value, 0);
  return std::move(writer.out);
}

std::string python_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  if (value == 0) return std::signbit(value) ? "-0.0" : "0.0";
  // The shortest digits that read back as the same double; Python puts the point by the exponent.
  char buffer[32];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  std::string_view text(buffer, static_cast<size_t>(end - buffer));
  std::string out;
  if (text.front() == '-') {
    out = "-";
    text.remove_prefix(1);
  }
  const size_t e = text.find('e');
  std::string digits;
  for (const char c : text.substr(0, e)) {
    if (c != '.') digits += c;
  }
  const std::string_view power = text.substr(e + 1);
  int exponent = 0;
  std::from_chars(power.data() + (power.front() == '+' ? 1 : 0), power.data() + power.size(),
                  exponent);
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits.substr(0, 1);
    if (count > 1) out += '.' + digits.substr(1);
    return out + fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0)
    return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const size_t whole = static_cast<size_t>(exponent) + 1;
  if (count <= exponent + 1) return out + digits + std::string(whole - digits.size(), '0') + ".0";
  return out + digits.substr(0, whole) + '.' + digits.substr(whole);
}

}  // namespace quern
