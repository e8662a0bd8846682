// JSON values out of a stream, one after another: the items of one array, or values that follow each
// other, each on as many lines as it likes. Memory holds one value at a time.
#pragma once

#include <memory>
#include <string>

#include "formats/byte_source.h"

namespace quern {

class JsonValues {
 public:
  // `name` names the source in messages.
  JsonValues(std::unique_ptr<ByteSource> source, std::string name, uint64_t max_value_bytes);

  // The next object's text, which is not checked further than its brackets and quotes. Throws
  // BadInput naming source and line for what is no object, an array that does not end, something
  // after it, or a value longer than the limit.
  bool next(std::string& value);
  int64_t line() const noexcept { return value_line_; }  // where the last value began, from 1
  uint64_t consumed_bytes() const noexcept { return source_->consumed_bytes(); }

 private:
  int peek();  // -1 at the end
  int take();
  int skip_space();
  [[noreturn]] void fail(const std::string& problem) const;

  std::unique_ptr<ByteSource> source_;
  std::string name_;
  uint64_t max_value_bytes_;
  std::string buffer_;
  size_t begin_ = 0, end_ = 0;
  int64_t line_ = 1, value_line_ = 1;
  bool started_ = false, in_array_ = false, first_item_ = true, done_ = false;
};

}  // namespace quern
