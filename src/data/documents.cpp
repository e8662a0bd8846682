#include "data/documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "core/json.h"
#include "core/utf8.h"
#include "formats/byte_source.h"

namespace quern {
namespace {

constexpr uint64_t kMaxTextBytes = uint64_t{1} << 30;

bool is_jsonl(const fs::path& path) {
  fs::path name = path.filename();
  if (name.extension() == ".gz" || name.extension() == ".zst") name = name.stem();
  return name.extension() == ".jsonl" || name.extension() == ".ndjson";
}

bool selected(const Json& record, const DocumentOptions& options) {
  std::set<std::string_view> fields, met;
  for (const auto& [field, value] : options.where) {
    fields.insert(field);
    const auto found = record.find(field);
    if (found && found->string() == value) met.insert(field);
  }
  return met.size() == fields.size();
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
  }
  const bool answers = std::any_of(messages.begin(), messages.end(), [](const Message& m) {
    return m.role == ChatRole::Assistant && !m.text().empty();
  });
  if (!answers) list.fail("has no answer of the assistant to learn from");
  return messages;
}

}  // namespace

DocumentReader::DocumentReader(const fs::path& path, const DocumentOptions& options)
    : path_(path), options_(options) {
  if (is_jsonl(path)) {
    lines_ = std::make_unique<LineReader>(ByteSource::open(path), path.string(),
                                          options.max_record_bytes);
  } else if (!options.messages_field.empty()) {
    throw_bad_input(path.string() + ": conversations are read from .jsonl files",
                    "name it .jsonl, .jsonl.gz or .jsonl.zst");
  }
}

DocumentReader::~DocumentReader() = default;

bool DocumentReader::parse(const std::string& line, Document& document) const {
  const Json record =
      Json::parse(line, fmt::format("{}: line {}", path_.string(), lines_->number()),
                  {.max_bytes = options_.max_record_bytes});
  if (!record.is_object()) record.fail("is not an object");
  if (!selected(record, options_)) return false;
  if (options_.messages_field.empty()) {
    document.text = record.at(options_.text_field).string();
  } else {
    document.messages = read_messages(record.at(options_.messages_field), options_);
  }
  return true;
}

bool DocumentReader::next(Document& document) {
  document = {};
  if (lines_) {
    std::string line;
    while (lines_->next(line)) {
      if (line.find_first_not_of(" \t") == std::string::npos) continue;
      try {
        if (parse(line, document)) return true;
      } catch (const Error& error) {
        if (!options_.skip_bad || error.kind() != Kind::BadInput) throw;
        if (bad_++ == 0) first_bad_ = error.what();
      }
    }
    return false;
  }
  if (whole_file_done_) return false;
  whole_file_done_ = true;
  const auto source = ByteSource::open(path_);
  std::vector<char> buffer(1 << 20);
  while (const size_t count = source->read(buffer)) {
    document.text.append(buffer.data(), count);
    if (document.text.size() > kMaxTextBytes) {
      throw_bad_input(fmt::format("{}: holds more than {} bytes as one document", path_.string(),
                                  kMaxTextBytes),
                      "split the file, or write one document a line as JSONL");
    }
  }
  whole_file_bytes_ = source->file_bytes();
  if (!utf8::is_valid(document.text)) {
    throw_bad_input(path_.string() + ": is not UTF-8", "convert it with iconv");
  }
  return !document.text.empty();
}

uint64_t DocumentReader::consumed_bytes() const noexcept {
  return lines_ ? lines_->consumed_bytes() : whole_file_bytes_;
}

}  // namespace quern
