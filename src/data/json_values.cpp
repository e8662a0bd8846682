#include "data/json_values.h"

#include <fmt/format.h>

#include "core/error.h"

namespace quern {

JsonValues::JsonValues(std::unique_ptr<ByteSource> source, std::string name,
                       uint64_t max_value_bytes)
    : source_(std::move(source)),
      name_(std::move(name)),
      max_value_bytes_(max_value_bytes),
      buffer_(1 << 18, '\0') {}

void JsonValues::fail(const std::string& problem) const {
  throw_bad_input(fmt::format("{}: line {}: {}", name_, line_, problem));
}

int JsonValues::peek() {
  if (begin_ == end_) {
    begin_ = 0;
    end_ = source_->read(buffer_);
    if (end_ == 0) return -1;
  }
  return static_cast<unsigned char>(buffer_[begin_]);
}

int JsonValues::take() {
  const int c = peek();
  if (c < 0) return c;
  ++begin_;
  if (c == '\n') ++line_;
  return c;
}

int JsonValues::skip_space() {
  int c = peek();
  while (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
    take();
    c = peek();
  }
  return c;
}

bool JsonValues::next(std::string& value) {
  value.clear();
  if (done_) return false;
  int c = skip_space();
  if (!started_) {
    started_ = true;
    if (c == 0xEF) {  // a byte order mark
      for (const int mark : {0xEF, 0xBB, 0xBF}) {
        if (take() != mark) fail("does not begin with JSON");
      }
      c = skip_space();
    }
    if (c == '[') {
      in_array_ = true;
      take();
      c = skip_space();
    }
  }
  if (in_array_) {
    if (c == ']' && first_item_) {
      take();
    } else if (!first_item_) {
      if (c != ',' && c != ']')
        fail(c < 0 ? "ends inside the array" : "lacks a comma between items");
      take();
      if (c == ',') c = skip_space();
    }
    first_item_ = false;
    if (c == ']') {
      if (skip_space() >= 0) fail("has something after the array");
      done_ = true;
      return false;
    }
  }
  if (c < 0) {
    if (in_array_) fail("ends inside the array");
    done_ = true;
    return false;
  }
  value_line_ = line_;
  if (c != '{') fail("is no JSON object");
  int64_t depth = 0;
  bool quoted = false, escaped = false;
  do {
    c = take();
    if (c < 0) fail("ends inside a value");
    value.push_back(static_cast<char>(c));
    if (value.size() > max_value_bytes_) {
      fail(fmt::format("has a value longer than {} bytes", max_value_bytes_));
    }
    if (quoted) {
      quoted = escaped || c != '"';
      escaped = !escaped && c == '\\';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  } while (depth > 0);
  return true;
}

}  // namespace quern
