// Bytes of a file in order, decompressed on the way: plain, gzip (also of several members) and
// zstd, told apart by their first bytes. Memory stays bounded whatever the file says of itself.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/file.h"

namespace quern {

class ByteSource {
 public:
  // Throws BadInput when the file is missing, is no regular file, or is named .gz or .zst and is
  // neither.
  static std::unique_ptr<ByteSource> open(const fs::path& path);
  // What comes in through standard input. Throws BadInput for compressed bytes, which the shell's
  // tools unpack.
  static std::unique_ptr<ByteSource> standard_input();
  // `prefix`, and then the rest of a source that it was read from.
  static std::unique_ptr<ByteSource> joined(std::string prefix, std::unique_ptr<ByteSource> rest);
  virtual ~ByteSource() = default;

  // Fills `out` from the front; 0 only at the end. Throws BadInput naming the file for a stream
  // that is cut short or damaged, is followed by something else, or grows more than
  // `kMaxExpansion`-fold.
  virtual size_t read(std::span<char> out) = 0;

  // Bytes of the file itself that were taken so far, and all of them: for progress.
  virtual uint64_t consumed_bytes() const noexcept = 0;
  uint64_t file_bytes() const noexcept { return file_bytes_; }

  // No text grows so: deflate's own limit is 1,032. Looked at past the first 64 MB.
  static constexpr uint64_t kMaxExpansion = 1000;

 protected:
  explicit ByteSource(uint64_t file_bytes) : file_bytes_(file_bytes) {}

 private:
  uint64_t file_bytes_;
};

// Lines of a source, without their ends (LF or CRLF) and without a byte order mark before the first.
// Throws BadInput naming file and line for one
// longer than `max_bytes`.
class LineReader {
 public:
  LineReader(std::unique_ptr<ByteSource> source, std::string name, uint64_t max_bytes);

  bool next(std::string& line);
  int64_t number() const noexcept { return number_; }  // of the last line, from 1
  uint64_t consumed_bytes() const noexcept { return source_->consumed_bytes(); }

 private:
  std::unique_ptr<ByteSource> source_;
  std::string name_;
  uint64_t max_bytes_;
  std::string buffer_;
  size_t begin_ = 0, end_ = 0;
  int64_t number_ = 0;
};

}  // namespace quern
