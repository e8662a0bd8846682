#include "formats/byte_source.h"

#include <fmt/format.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "core/error.h"

namespace quern {
namespace {

constexpr uint64_t kFreeExpansion = uint64_t{64} << 20;

class PlainSource final : public ByteSource {
 public:
  explicit PlainSource(MappedFile file) : ByteSource(file.size()), file_(std::move(file)) {}

  size_t read(std::span<char> out) override {
    const size_t count = std::min(out.size(), file_.size() - position_);
    std::memcpy(out.data(), file_.text().data() + position_, count);
    position_ += count;
    return count;
  }
  uint64_t consumed_bytes() const noexcept override { return position_; }

 private:
  MappedFile file_;
  size_t position_ = 0;
};

// What gzip and zstd share: the file's bytes, and the errors.
class Compressed : public ByteSource {
 public:
  uint64_t consumed_bytes() const noexcept override { return position_; }

 protected:
  explicit Compressed(MappedFile file) : ByteSource(file.size()), file_(std::move(file)) {}

  [[noreturn]] void fail(std::string_view what) const {
    throw_bad_input(fmt::format("{}: {} (at byte {} of {})", file_.path().string(), what, position_,
                                file_.size()),
                    "fetch or compress the file again");
  }
  void count_output(size_t bytes) {
    produced_ += bytes;
    if (produced_ > kFreeExpansion && produced_ / kMaxExpansion > position_) {
      fail(fmt::format("grows more than {}-fold when decompressed", kMaxExpansion));
    }
  }
  bool at_end() const noexcept { return position_ == file_.size(); }

  MappedFile file_;
  size_t position_ = 0;

 private:
  uint64_t produced_ = 0;
};

class GzipSource final : public Compressed {
 public:
  explicit GzipSource(MappedFile file) : Compressed(std::move(file)) {
    if (inflateInit2(&stream_, 15 + 16) != Z_OK) {
      throw Error(Kind::NoResources, "no memory to decompress " + file_.path().string());
    }
  }
  ~GzipSource() override { inflateEnd(&stream_); }

  size_t read(std::span<char> out) override {
    size_t filled = 0;
    while (filled < out.size()) {
      if (member_ended_) {
        if (at_end()) break;
        // Blocks of zeros pad archives that were written to tape; anything else is a next member.
        if (std::all_of(file_.data() + position_, file_.data() + file_.size(),
                        [](std::byte b) { return b == std::byte{0}; })) {
          position_ = file_.size();
          break;
        }
        if (inflateReset(&stream_) != Z_OK) fail("cannot be decompressed");
        member_ended_ = false;
      }
      const size_t input = std::min<size_t>(file_.size() - position_, 1 << 20);
      const size_t room = std::min<size_t>(out.size() - filled, 1 << 30);
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(file_.data() + position_));
      stream_.avail_in = static_cast<uInt>(input);
      stream_.next_out = reinterpret_cast<Bytef*>(out.data() + filled);
      stream_.avail_out = static_cast<uInt>(room);
      const int status = inflate(&stream_, Z_NO_FLUSH);
      position_ += input - stream_.avail_in;
      const size_t produced = room - stream_.avail_out;
      filled += produced;
      count_output(produced);
      if (status == Z_STREAM_END) {
        member_ended_ = true;
      } else if (status != Z_OK && status != Z_BUF_ERROR) {
        fail(members_ ? "has something that is no gzip after its end"
                      : "is damaged: its gzip data cannot be decompressed");
      } else if (at_end() && produced == 0) {
        fail("is cut short: its gzip data do not end");
      }
      if (member_ended_) members_ = true;
    }
    return filled;
  }

 private:
  z_stream stream_{};
  bool member_ended_ = false, members_ = false;
};

class ZstdSource final : public Compressed {
 public:
  explicit ZstdSource(MappedFile file) : Compressed(std::move(file)), stream_(ZSTD_createDCtx()) {
    if (stream_ == nullptr) {
      throw Error(Kind::NoResources, "no memory to decompress " + file_.path().string());
    }
    ZSTD_DCtx_setParameter(stream_, ZSTD_d_windowLogMax, 27);  // 128 MB, zstd's own default limit
  }
  ~ZstdSource() override { ZSTD_freeDCtx(stream_); }

  size_t read(std::span<char> out) override {
    size_t filled = 0;
    while (filled < out.size() && !(at_end() && frame_ended_)) {
      ZSTD_inBuffer input{file_.data() + position_,
                          std::min<size_t>(file_.size() - position_, 1 << 20), 0};
      ZSTD_outBuffer output{out.data() + filled, out.size() - filled, 0};
      const size_t status = ZSTD_decompressStream(stream_, &output, &input);
      if (ZSTD_isError(status)) {
        fail(fmt::format("its zstd data cannot be decompressed: {}", ZSTD_getErrorName(status)));
      }
      position_ += input.pos;
      filled += output.pos;
      count_output(output.pos);
      frame_ended_ = status == 0;
      if (!frame_ended_ && at_end() && output.pos == 0) {
        fail("is cut short: its zstd data do not end");
      }
    }
    return filled;
  }

 private:
  ZSTD_DCtx* stream_;
  bool frame_ended_ = false;
};

class StandardInput final : public ByteSource {
 public:
  StandardInput() : ByteSource(0) {}
  size_t read(std::span<char> out) override {
    size_t filled = 0;
    while (filled < out.size()) {
      const ssize_t count = ::read(STDIN_FILENO, out.data() + filled, out.size() - filled);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw_errno("standard input", "cannot read");
      if (count == 0) break;
      filled += static_cast<size_t>(count);
    }
    if (consumed_ == 0 && filled >= 4) {
      const std::string_view begin(out.data(), 4);
      if (begin.starts_with("\x1F\x8B") || begin == "\x28\xB5\x2F\xFD") {
        throw_bad_input("standard input: is compressed", "put zcat or zstdcat in between");
      }
    }
    consumed_ += filled;
    return filled;
  }
  uint64_t consumed_bytes() const noexcept override { return consumed_; }

 private:
  uint64_t consumed_ = 0;
};

class Joined final : public ByteSource {
 public:
  Joined(std::string prefix, std::unique_ptr<ByteSource> rest)
      : ByteSource(rest->file_bytes()), prefix_(std::move(prefix)), rest_(std::move(rest)) {}
  size_t read(std::span<char> out) override {
    if (at_ == prefix_.size()) return rest_->read(out);
    const size_t count = prefix_.copy(out.data(), out.size(), at_);
    at_ += count;
    return count;
  }
  uint64_t consumed_bytes() const noexcept override { return rest_->consumed_bytes(); }

 private:
  std::string prefix_;
  size_t at_ = 0;
  std::unique_ptr<ByteSource> rest_;
};

bool begins_with(const MappedFile& file, std::initializer_list<int> bytes) {
  if (file.size() < bytes.size()) return false;
  const std::byte* at = file.data();
  return std::all_of(bytes.begin(), bytes.end(), [&](int b) { return std::byte(b) == *at++; });
}

}  // namespace

std::unique_ptr<ByteSource> ByteSource::open(const fs::path& path) {
  MappedFile file(path);
  if (begins_with(file, {0x1F, 0x8B})) return std::make_unique<GzipSource>(std::move(file));
  if (begins_with(file, {0x28, 0xB5, 0x2F, 0xFD})) {
    return std::make_unique<ZstdSource>(std::move(file));
  }
  const std::string ending = path.extension().string();
  if (ending == ".gz" || ending == ".zst") {
    const bool pointer = is_lfs_pointer(file.text().substr(0, 200));
    throw_bad_input(fmt::format("{}: is named {} but its bytes are not", path.string(), ending),
                    pointer ? "this is a Git LFS pointer; fetch the file itself with 'git lfs pull'"
                            : "rename the file, or fetch it again");
  }
  return std::make_unique<PlainSource>(std::move(file));
}

std::unique_ptr<ByteSource> ByteSource::standard_input() {
  return std::make_unique<StandardInput>();
}

std::unique_ptr<ByteSource> ByteSource::joined(std::string prefix,
                                               std::unique_ptr<ByteSource> rest) {
  return std::make_unique<Joined>(std::move(prefix), std::move(rest));
}

LineReader::LineReader(std::unique_ptr<ByteSource> source, std::string name, uint64_t max_bytes)
    : source_(std::move(source)),
      name_(std::move(name)),
      max_bytes_(max_bytes),
      buffer_(1 << 18, '\0') {}

bool LineReader::next(std::string& line) {
  line.clear();
  bool any = false;
  for (;;) {
    if (begin_ == end_) {
      begin_ = 0;
      end_ = source_->read(buffer_);
      if (end_ == 0) break;
    }
    any = true;
    const std::string_view rest(buffer_.data() + begin_, end_ - begin_);
    const size_t newline = rest.find('\n');
    line.append(rest.substr(0, newline));
    if (line.size() > max_bytes_) {
      throw_bad_input(
          fmt::format("{}: line {} is longer than {} bytes", name_, number_ + 1, max_bytes_),
          "one record stands on one line");
    }
    begin_ = newline == std::string_view::npos ? end_ : begin_ + newline + 1;
    if (newline != std::string_view::npos) break;
  }
  if (!any) return false;
  ++number_;
  if (number_ == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
  if (line.ends_with('\r')) line.pop_back();
  return true;
}

}  // namespace quern
