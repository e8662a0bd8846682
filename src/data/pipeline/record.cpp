#include "data/pipeline/record.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <cmath>

#include "core/error.h"
#include "core/json_string.h"

namespace quern {

struct RecordParser::State {
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  std::string padded;
};

RecordParser::RecordParser() : state_(std::make_unique<State>()) {}
RecordParser::~RecordParser() = default;

namespace {

// These walk over text that the parser has checked, without looking for errors.
const char* skip_space(const char* at) noexcept {
  while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r') ++at;
  return at;
}

// The place after the string whose opening quote is at `at`.
const char* skip_string(const char* at) noexcept {
  for (++at; *at != '"'; ++at) {
    if (*at == '\\') ++at;
  }
  return at + 1;
}

const char* skip_value(const char* at) noexcept {
  if (*at == '"') return skip_string(at);
  if (*at != '{' && *at != '[') {
    while (*at != ',' && *at != '}' && *at != ']' && *at != ' ' && *at != '\t' && *at != '\n' &&
           *at != '\r') {
      ++at;
    }
    return at;
  }
  int depth = 0;
  do {
    if (*at == '"') {
      at = skip_string(at);
      continue;
    }
    if (*at == '{' || *at == '[') ++depth;
    if (*at == '}' || *at == ']') --depth;
    ++at;
  } while (depth > 0);
  return at;
}

std::string problem(simdjson::error_code error) {
  switch (error) {
    case simdjson::UTF8_ERROR:
      return "is not UTF-8";
    case simdjson::DEPTH_ERROR:
      return fmt::format("is nested deeper than {}", Record::kMaxDepth);
    case simdjson::NUMBER_ERROR:
      return "holds a number that is malformed or past 64 bits";
    case simdjson::MEMALLOC:
      return "is too long";
    default:
      return "is no JSON object";
  }
}

}  // namespace

Record::Record(RecordParser& parser, std::string_view line, std::string_view text_field)
    : state_(*parser.state_), line_(line), text_field_(text_field) {
  // The parser reads past the end; lines of one file lie side by side, so each is copied.
  state_.padded.assign(line);
  state_.padded.append(simdjson::SIMDJSON_PADDING, ' ');
  if (state_.parser.max_depth() != static_cast<size_t>(kMaxDepth) ||
      state_.parser.capacity() < line.size()) {
    if (const auto error =
            state_.parser.allocate(std::max<size_t>(line.size(), 1 << 16), kMaxDepth)) {
      throw_bad_input(problem(error));
    }
  }
  simdjson::dom::element root;
  const auto error =
      state_.parser.parse(state_.padded.data(), line.size(), /*realloc_if_needed=*/false).get(root);
  if (error) throw_bad_input(problem(error));
  if (root.get(state_.object)) throw_bad_input("is no JSON object");

  const char* at = skip_space(state_.padded.data()) + 1;
  for (at = skip_space(at); *at != '}'; at = skip_space(at)) {
    if (*at == ',') at = skip_space(at + 1);
    const char* key = at;
    at = skip_string(at);
    const std::string_view name(key + 1, static_cast<size_t>(at - key - 2));
    at = skip_space(skip_space(at) + 1);  // the colon
    const char* value = at;
    at = skip_value(at);
    members_.push_back({name, {value, static_cast<size_t>(at - value)}});
  }
  for (size_t i = 0; i < members_.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (members_[i].key == members_[j].key) {
        throw_bad_input(fmt::format("has the key '{}' twice", printable(members_[i].key, 80)));
      }
    }
  }
  if (text_field_.empty()) return;
  std::string_view text;
  if (state_.object[text_field_].get(text)) {
    throw_bad_input(fmt::format("has no text in the field '{}'", printable(text_field_, 80)));
  }
  text_ = text;
}

void Record::set_text(std::string text) {
  own_text_ = std::move(text);
  text_ = own_text_;
  set(text_field_.empty() ? "text" : text_field_, own_text_);
}

const Record::Edit* Record::edit(std::string_view key) const noexcept {
  for (const Edit& one : edits_) {
    if (one.key == key) return &one;
  }
  return nullptr;
}

std::optional<std::string> Record::string(std::string_view key) const {
  if (const Edit* one = edit(key)) {
    if (one->json.size() < 2 || one->json.front() != '"') return std::nullopt;
    simdjson::dom::parser parser;
    std::string_view value;
    if (parser.parse(one->json).get(value)) return std::nullopt;
    return std::string(value);
  }
  std::string_view value;
  if (state_.object[key].get(value)) return std::nullopt;
  return std::string(value);
}

std::optional<double> Record::number(std::string_view key) const {
  double value = 0;
  if (const Edit* one = edit(key)) {
    simdjson::dom::parser parser;
    if (one->json.empty() || parser.parse(one->json).get(value)) return std::nullopt;
    return value;
  }
  if (state_.object[key].get(value)) return std::nullopt;
  return value;
}

std::optional<bool> Record::boolean(std::string_view key) const {
  if (const Edit* one = edit(key)) {
    if (one->json != "true" && one->json != "false") return std::nullopt;
    return one->json == "true";
  }
  bool value = false;
  if (state_.object[key].get(value)) return std::nullopt;
  return value;
}

std::string_view Record::raw(std::string_view key) const {
  if (const Edit* one = edit(key)) return one->json;
  for (const Member& member : members_) {
    if (member.key == key) return member.value;
  }
  return {};
}

void Record::set(std::string_view key, std::string_view string_value) {
  set_raw(key, json_string(string_value));
}

void Record::set_number(std::string_view key, double value) { set_raw(key, json_number(value)); }

void Record::set_raw(std::string_view key, std::string json) {
  for (Edit& one : edits_) {
    if (one.key == key) {
      one.json = std::move(json);
      return;
    }
  }
  edits_.push_back({std::string(key), std::move(json)});
}

void Record::set_score(std::string_view name, double value) {
  const std::string_view old = raw("scores");
  const std::string key = json_string(name);
  std::string scores = "{";
  if (old.size() > 2 && old.front() == '{') {
    // Members other than this score stay as they are.
    simdjson::dom::parser parser;
    simdjson::dom::object object;
    if (!parser.parse(std::string(old)).get(object)) {
      for (const auto& [member, element] : object) {
        if (member == name) continue;
        if (scores.size() > 1) scores += ", ";
        scores += json_string(member) + ": " + simdjson::minify(element);
      }
    }
  }
  if (scores.size() > 1) scores += ", ";
  set_raw("scores", scores + key + ": " + json_number(value) + "}");
}

void Record::remove(std::string_view key) { set_raw(key, {}); }

std::string Record::json() const {
  if (edits_.empty()) return std::string(line_);
  std::string out = "{";
  out.reserve(line_.size() + 64);
  const auto put = [&](std::string_view key, std::string_view value) {
    if (out.size() > 1) out += ", ";
    out.append("\"").append(key).append("\": ").append(value);
  };
  std::vector<bool> placed(edits_.size());
  for (const Member& member : members_) {
    const Edit* one = edit(member.key);
    if (one == nullptr) {
      put(member.key, member.value);
      continue;
    }
    placed[static_cast<size_t>(one - edits_.data())] = true;
    if (!one->json.empty()) put(member.key, one->json);
  }
  for (size_t i = 0; i < edits_.size(); ++i) {
    if (placed[i] || edits_[i].json.empty()) continue;
    const std::string key = json_string(edits_[i].key);
    put(std::string_view(key).substr(1, key.size() - 2), edits_[i].json);
  }
  return out + "}";
}

std::string json_number(double value) {
  if (!std::isfinite(value)) return "null";
  if (value == std::floor(value) && std::abs(value) < 1e15) {
    return fmt::format("{}", static_cast<int64_t>(value));
  }
  return fmt::format("{}", value);
}

}  // namespace quern
