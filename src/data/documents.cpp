#include "data/documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "core/ascii.h"
#include "core/error.h"
#include "core/json.h"
#include "core/utf8.h"
#include "data/json_values.h"
#include "formats/byte_source.h"

namespace quern {
namespace {

constexpr uint64_t kMaxTextBytes = uint64_t{1} << 30;

enum class Named : uint8_t { Records, Text, Either };

// The kind of file that the name promises.
Named kind_by_name(const fs::path& path) {
  fs::path name = ascii_lower(path.filename().string());
  if (name.extension() == ".gz" || name.extension() == ".zst") name = name.stem();
  const std::string ending = name.extension().string();
  if (ending == ".jsonl" || ending == ".ndjson" || ending == ".json") return Named::Records;
  return ending == ".txt" || ending == ".md" ? Named::Text : Named::Either;
}

// The layout of records in a file that begins with `head`, which may be cut off.
enum class Layout : uint8_t { None, Lines, Values };
struct Head {
  Layout layout = Layout::None;
  bool decided = false;  // more of the file would not change it
};
Head look_at(std::string_view head) {
  if (head.starts_with("\xEF\xBB\xBF")) head.remove_prefix(3);
  const size_t begin = head.find_first_not_of(" \t\r\n");
  if (begin == head.npos) return {};
  if (head[begin] == '[') return {Layout::Values, true};
  if (head[begin] != '{') return {Layout::None, true};
  // Where records stand one a line, the first one is whole at the end of its line.
  int64_t depth = 0;
  bool quoted = false;
  for (size_t i = begin; i < head.size(); ++i) {
    const char c = head[i];
    if (c == '\n') return {Layout::Values, true};
    if (quoted) {
      if (c == '\\') ++i;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if ((c == '}' || c == ']') && --depth == 0) {
      return {Layout::Lines, true};
    }
  }
  return {Layout::Lines, false};
}

// Compares a record's value with what the user wrote: numbers by value, booleans by name.
bool equals(const Json& value, const std::string& wanted) {
  if (value.is_string()) return value.string() == wanted;
  if (value.is_bool()) return wanted == (value.boolean() ? "true" : "false");
  if (!value.is_number()) value.fail("is neither a text, a number nor a boolean, and is compared");
  if (value.is_integer()) {
    int64_t whole = 0;
    const auto [end, failure] =
        std::from_chars(wanted.data(), wanted.data() + wanted.size(), whole);
    if (failure == std::errc{} && end == wanted.data() + wanted.size()) {
      return value.raw() == whole;
    }
  }
  double number = 0;
  const auto [end, failure] = std::from_chars(wanted.data(), wanted.data() + wanted.size(), number);
  return failure == std::errc{} && end == wanted.data() + wanted.size() && value.number() == number;
}

void fill_in(std::string& text, const DocumentOptions& options) {
  for (const auto& [name, value] : options.replace) {
    const std::string mark = "{{" + name + "}}";
    for (size_t at = text.find(mark); at != std::string::npos;
         at = text.find(mark, at + value.size())) {
      text.replace(at, mark.size(), value);
    }
  }
}

std::vector<Message> read_messages(const Json& list, const DocumentOptions& options) {
  std::vector<Message> messages;
  for (const Json& item : list.items()) {
    const std::string& role = item.at("role").string();
    const auto who = role_of(role);
    if (who != ChatRole::System && who != ChatRole::User && who != ChatRole::Assistant) {
      item.at("role").fail(
          fmt::format("is '{}', expected system, user or assistant", printable(role, 40)));
    }
    std::string content = item.at("content").string();
    if (who == ChatRole::System && !messages.empty()) {
      item.at("role").fail("is 'system' past the first message");
    }
    fill_in(content, options);
    messages.push_back({*who, std::move(content)});
    if (const auto weight = item.find("weight")) {
      const double share = weight->number();
      if (share != 0 && share != 1) {
        weight->fail("is neither 0 nor 1", "a message is learnt or not; shares are not known");
      }
      messages.back().learn = share == 1;
    }
  }
  const bool answers = std::any_of(messages.begin(), messages.end(), [](const Message& m) {
    return m.role == ChatRole::Assistant && m.learn && !m.text().empty();
  });
  if (!answers) list.fail("has no answer of the assistant to learn from");
  return messages;
}

}  // namespace

DocumentReader::DocumentReader(const fs::path& path, const DocumentOptions& options)
    : name_(path == "-" ? "standard input" : path.string()), options_(options) {
  if (!options.replace.empty() && options.messages_field.empty()) {
    throw Error(Kind::Misused, name_ + ": replacements are for conversations, and texts are read",
                "name the field of the conversations: messages");
  }
  open(path);
  if (lines_ || values_) return;
  const char* unfit = !options.messages_field.empty() ? "conversations"
                      : !options.where.empty()        ? "fields to choose by (--where)"
                      : options.text_field != "text"  ? "a field of the text (--field)"
                                                      : nullptr;
  if (unfit != nullptr) {
    throw_bad_input(fmt::format("{}: is plain text, which has no {}", name_, unfit),
                    "records of JSON have them: .jsonl, .json");
  }
}

DocumentReader::~DocumentReader() = default;

void DocumentReader::open(const fs::path& path) {
  auto source = path == "-" ? ByteSource::standard_input() : ByteSource::open(path);
  const Named named = path == "-" ? Named::Either : kind_by_name(path);
  if (named == Named::Text) {
    text_ = std::move(source);
    return;
  }
  // Reads as much of the file as shows its layout.
  std::string head, chunk;
  Head seen;
  while (!seen.decided && head.size() < options_.max_record_bytes) {
    chunk.resize(std::max(size_t{1} << 16, head.size()));  // so that looking again costs little
    const size_t count = source->read(chunk);
    if (count == 0) break;
    head.append(chunk, 0, count);
    seen = look_at(head);
  }
  // A text may begin with a bracket.
  const bool array = head.find_first_not_of(" \t\r\n\xEF\xBB\xBF") != head.npos &&
                     head[head.find_first_not_of(" \t\r\n\xEF\xBB\xBF")] == '[';
  if (array && named == Named::Either) {
    const size_t item = head.find_first_not_of(" \t\r\n", head.find('[') + 1);
    if (item == head.npos || head[item] != '{') seen.layout = Layout::None;
  }
  source = ByteSource::joined(std::move(head), std::move(source));
  if (seen.layout == Layout::Values) {
    values_ = std::make_unique<JsonValues>(std::move(source), name_, options_.max_record_bytes);
  } else if (seen.layout == Layout::Lines || named == Named::Records) {
    lines_ = std::make_unique<LineReader>(std::move(source), name_, options_.max_record_bytes);
  } else {
    text_ = std::move(source);
  }
}

bool DocumentReader::selected(const Json& record) {
  std::set<std::string_view> fields, met;
  for (const auto& [field, value] : options_.where) {
    fields.insert(field);
    const auto found = record.find(field);
    if (!found) continue;
    met_.insert(field);
    if (equals(*found, value)) met.insert(field);
  }
  return met.size() == fields.size();
}

bool DocumentReader::parse(const std::string& text, int64_t line, Document& document) {
  const Json record = Json::parse(text, fmt::format("{}: line {}", name_, line),
                                  {.max_bytes = options_.max_record_bytes});
  if (!record.is_object()) record.fail("is not an object");
  ++records_;
  if (!selected(record)) return false;
  if (options_.messages_field.empty()) {
    document.text = record.at(options_.text_field).string();
  } else {
    document.messages = read_messages(record.at(options_.messages_field), options_);
  }
  return true;
}

bool DocumentReader::next_record(std::string& record, int64_t& line) {
  if (values_) {
    const bool any = values_->next(record);
    line = values_->line();
    return any;
  }
  while (lines_->next(record)) {
    line = lines_->number();
    if (record.find_first_not_of(" \t") != std::string::npos) return true;
  }
  return false;
}

bool DocumentReader::next(Document& document) {
  document = {};
  if (!lines_ && !values_) return next_text(document);
  std::string record;
  int64_t line = 0;
  while (next_record(record, line)) {
    try {
      if (parse(record, line, document)) return true;
    } catch (const Error& error) {
      if (!options_.skip_bad || error.kind() != Kind::BadInput) throw;
      if (bad_++ == 0) first_bad_ = error.what();
    }
  }
  for (const auto& [field, value] : options_.where) {
    if (records_ == 0 || met_.contains(field)) continue;
    throw_bad_input(fmt::format("{}: none of its records has the field '{}', which is to be {}",
                                name_, printable(field, 60), printable(value, 60)));
  }
  return false;
}

bool DocumentReader::next_text(Document& document) {
  if (!text_) return false;
  std::vector<char> buffer(1 << 20);
  while (const size_t count = text_->read(buffer)) {
    document.text.append(buffer.data(), count);
    if (document.text.size() > kMaxTextBytes) {
      throw_bad_input(
          fmt::format("{}: holds more than {} bytes as one document", name_, kMaxTextBytes),
          "split the file, or write one document a line as JSONL");
    }
  }
  text_bytes_ = text_->file_bytes();
  text_.reset();
  if (document.text.starts_with("\xEF\xBB\xBF")) document.text.erase(0, 3);
  if (!utf8::is_valid(document.text)) {
    throw_bad_input(name_ + ": is not UTF-8", "convert it with iconv");
  }
  return !document.text.empty();
}

uint64_t DocumentReader::consumed_bytes() const noexcept {
  return lines_ ? lines_->consumed_bytes() : values_ ? values_->consumed_bytes() : text_bytes_;
}

}  // namespace quern
