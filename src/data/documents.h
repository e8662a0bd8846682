// Documents out of files: plain text (a file is a document) or JSONL, either of them gzipped or
// zstd-compressed. A JSONL record holds a text, or a conversation.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/file.h"
#include "text/messages.h"

namespace quern {

class LineReader;

struct DocumentOptions {
  std::string text_field = "text";
  // Read conversations instead: an array of {"role", "content"}. Empty: texts.
  std::string messages_field;
  // Only records whose field has one of its values: {"lang", "en"}; several for one field are
  // alternatives.
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
  DocumentReader(const fs::path& path, const DocumentOptions& options);
  ~DocumentReader();

  // The next document, or false at the end. Throws BadInput naming file, line and field for a
  // record that is no JSON object, lacks the field, or holds something else there.
  bool next(Document& document);

  uint64_t consumed_bytes() const noexcept;
  int64_t bad_records() const noexcept { return bad_; }
  const std::string& first_bad() const noexcept { return first_bad_; }  // what was wrong with it

 private:
  bool parse(const std::string& line, Document& document) const;

  fs::path path_;
  DocumentOptions options_;
  std::unique_ptr<LineReader> lines_;  // of JSONL
  bool whole_file_done_ = false;       // of text
  uint64_t whole_file_bytes_ = 0;
  int64_t bad_ = 0;
  std::string first_bad_;
};

}  // namespace quern
