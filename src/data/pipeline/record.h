// A document in the pipeline: one JSON object per line, with the fields that stages know (id, text,
// source, lang, lang_score, url, license, scores) and any others, which are kept as they are.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quern {

// Reads records of one thread one after another; a Record is valid until the next is read.
class RecordParser {
 public:
  RecordParser();
  ~RecordParser();
  RecordParser(const RecordParser&) = delete;
  RecordParser& operator=(const RecordParser&) = delete;

 private:
  friend class Record;
  struct State;
  std::unique_ptr<State> state_;
};

class Record {
 public:
  static constexpr int kMaxDepth = 64;

  // Parses `line`, which must outlive the record. Throws BadInput saying what is wrong: no JSON
  // object, bad UTF-8, nested too deep, a key twice, no text in `text_field`. An empty `text_field`
  // asks for no text.
  Record(RecordParser& parser, std::string_view line, std::string_view text_field = "text");

  // The text, as parsed or as last set.
  std::string_view text() const noexcept { return text_; }
  void set_text(std::string text);

  // A field that is a string, a number, a boolean; nothing where it is absent or something else.
  std::optional<std::string> string(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  // A field's JSON as it stands in the line; empty where it is absent.
  std::string_view raw(std::string_view key) const;

  void set(std::string_view key, std::string_view string_value);
  void set_number(std::string_view key, double value);
  // `json` is one JSON value.
  void set_raw(std::string_view key, std::string json);
  // scores.<name>, beside the scores that are there.
  void set_score(std::string_view name, double value);
  void remove(std::string_view key);

  // The object as one line without its end: the line as read where nothing was set.
  std::string json() const;

 private:
  struct Member {
    std::string_view key;  // as written, without quotes
    std::string_view value;
  };
  struct Edit {
    std::string key, json;  // json empty: removed
  };
  const Edit* edit(std::string_view key) const noexcept;

  RecordParser::State& state_;
  std::string_view line_, text_field_;
  std::vector<Member> members_;
  std::vector<Edit> edits_;
  std::string_view text_;
  std::string own_text_;
};

// A number as JSON: the shortest that reads back the same.
std::string json_number(double value);

}  // namespace quern
