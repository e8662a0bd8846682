// Documents out of files: plain text (a file is a document), or records of JSON, either of them
// gzipped or zstd-compressed. A record holds a text, or a conversation.
//
// The content decides how a file is read: records stand one a line, or are the items of one array,
// or are one object over several lines. Files named .jsonl, .ndjson or .json, in any case, must be
// records; .txt and .md are text; others are records where they begin with an object, else text.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "text/messages.h"

namespace quern {

class ByteSource;
class JsonValues;
class LineReader;

struct DocumentOptions {
  std::string text_field = "text";
  // Read conversations instead: an array of {"role", "content"}. Empty: texts.
  std::string messages_field;
  // Only records whose field has one of its values: {"lang", "en"}; several for one field are
  // alternatives. Numbers are compared as numbers, so that 1 is 1.0; booleans are true and false.
  std::vector<std::pair<std::string, std::string>> where;
  // {{name}} in messages becomes the value.
  std::vector<std::pair<std::string, std::string>> replace;
  bool skip_bad = false;  // count a bad record instead of throwing
  uint64_t max_record_bytes = uint64_t{64} << 20;
};

struct Document {
  std::string text;               // of a text
  std::vector<Message> messages;  // of a conversation
};

class DocumentReader {
 public:
  // `-` is standard input. Throws BadInput for a text where options are about records, Misused for
  // replacements without conversations.
  DocumentReader(const fs::path& path, const DocumentOptions& options);
  ~DocumentReader();

  // The next document, or false at the end. Throws BadInput naming file, line and field for a
  // record that is no JSON object, lacks the field, or holds something else there; and at the end
  // where no record at all had a field that `where` asks for.
  bool next(Document& document);

  uint64_t consumed_bytes() const noexcept;
  int64_t bad_records() const noexcept { return bad_; }
  const std::string& first_bad() const noexcept { return first_bad_; }  // what was wrong with it

 private:
  void open(const fs::path& path);
  bool next_record(std::string& record, int64_t& line);
  bool parse(const std::string& record, int64_t line, Document& document);
  bool selected(const Json& record);
  bool next_text(Document& document);

  std::string name_;  // of the file, in messages
  DocumentOptions options_;
  std::unique_ptr<LineReader> lines_;   // of records one a line
  std::unique_ptr<JsonValues> values_;  // of other records
  std::unique_ptr<ByteSource> text_;    // of a text, until it is read
  uint64_t text_bytes_ = 0;
  std::set<std::string, std::less<>> met_;  // fields of `where` that some record had
  int64_t records_ = 0;
  int64_t bad_ = 0;
  std::string first_bad_;
};

}  // namespace quern
