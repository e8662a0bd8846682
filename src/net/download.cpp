#include "net/download.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>

#include "core/ascii.h"
#include "core/error.h"
#include "core/progress.h"

namespace quern::net {
namespace {

// A file that is appended to. Never follows a link: somebody else may have put one beside the
// target.
class PartFile {
 public:
  explicit PartFile(const fs::path& path)
      : path_(path),
        descriptor_(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644)) {
    if (descriptor_ < 0) throw_errno(path.string(), "cannot write");
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0) throw_errno(path.string(), "cannot read its size");
    if (!S_ISREG(status.st_mode)) throw_bad_input(path.string() + ": is not a regular file");
    size_ = static_cast<uint64_t>(status.st_size);
    ::lseek(descriptor_, 0, SEEK_END);
  }
  ~PartFile() { ::close(descriptor_); }
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  uint64_t size() const noexcept { return size_; }
  void clear() {
    if (::ftruncate(descriptor_, 0) != 0) throw_errno(path_.string(), "cannot empty");
    ::lseek(descriptor_, 0, SEEK_SET);
    size_ = 0;
  }
  void append(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) throw_errno(path_.string(), "cannot write");
      bytes.remove_prefix(static_cast<size_t>(written));
      size_ += static_cast<uint64_t>(written);
    }
  }
  void sync() {
    if (::fsync(descriptor_) != 0) throw_errno(path_.string(), "cannot write");
  }

 private:
  fs::path path_;
  int descriptor_;
  uint64_t size_ = 0;
};

// The size of the whole file: the 10 of "bytes 3-9/10"; absent where the head does not tell it.
std::optional<uint64_t> whole_size(const HttpReply& head) {
  const std::string text(head.status == 200 ? head.header("content-length")
                                            : head.header("content-range"));
  const size_t slash = head.status == 200 ? 0 : text.find('/') + 1;
  if (text.empty() || (head.status != 200 && slash == 0)) return std::nullopt;
  char* end = nullptr;
  const uint64_t size = std::strtoull(text.c_str() + slash, &end, 10);
  if (end == text.c_str() + slash || *end != '\0') return std::nullopt;
  return size;
}

class Fetch {
 public:
  Fetch(HttpClient& client, const Download& wanted, const std::atomic<bool>* cancel)
      : client_(client),
        wanted_(wanted),
        cancel_(cancel),
        part_(wanted.file.string() + ".part"),
        tag_(wanted.file.string() + ".part.etag") {}

  Downloaded run() {
    Downloaded out;
    {
      PartFile file(part_);
      const std::string etag = fs::exists(tag_) ? read_file(tag_, 4096) : "";
      // Without an ETag, only a known checksum can show that earlier bytes belong to this file.
      if (file.size() > 0 && etag.empty() && wanted_.sha256.empty()) file.clear();
      etag_ = etag;
      fetch(file);
      file.sync();
      out.received = received_;
      out.size = file.size();
    }
    out.sha256 = sha256_file(part_);
    out.etag = etag_;
    if (!wanted_.sha256.empty() && out.sha256 != ascii_lower(wanted_.sha256)) {
      discard();
      throw_bad_input(fmt::format("{}: its SHA-256 is {}, expected {}", wanted_.url, out.sha256,
                                  ascii_lower(wanted_.sha256)),
                      "what came is not what was published; it was removed");
    }
    std::error_code failed;
    fs::rename(part_, wanted_.file, failed);
    if (failed) throw Error(Kind::Failed, wanted_.file.string() + ": " + failed.message());
    fs::remove(tag_, failed);
    return out;
  }

 private:
  void discard() const {
    std::error_code ignored;
    fs::remove(part_, ignored);
    fs::remove(tag_, ignored);
  }

  // Tries until all is there; each try goes on where the last one ended.
  void fetch(PartFile& file) {
    double pause = 0.5;
    for (int failures = 0;;) {
      if (wanted_.size && file.size() > *wanted_.size) file.clear();
      if (wanted_.size && file.size() == *wanted_.size && file.size() > 0) return;
      const uint64_t before = file.size();
      const HttpReply reply = once(file);
      if (done_) return;
      if (cancel_ != nullptr && cancel_->load(std::memory_order_relaxed)) {
        throw Error(Kind::Interrupted, "interrupted", "the same command goes on where it stopped");
      }
      if (reply.status == 416 && before > 0) {  // more is there than the server has
        file.clear();
        ++failures;
      } else if (file.size() > before) {
        failures = 0;
        pause = 0.5;
      } else {
        ++failures;
      }
      const bool passes = !reply.failure.empty() || reply.status == 408 || reply.status == 416 ||
                          reply.status == 429 || reply.status >= 500;
      if (!passes || failures >= wanted_.tries) {
        throw Error(Kind::Failed, fmt::format("{}: {}", wanted_.url, reply.problem()),
                    file.size() > 0 ? "the same command goes on where it stopped" : "");
      }
      pause_ = std::chrono::milliseconds(static_cast<int64_t>(1000 * reply.retry_after(pause, 60)));
      pause = std::min(pause * 2, 30.0);
    }
  }

  HttpReply once(PartFile& file) {
    HttpCall call;
    call.path = wanted_.url;
    call.headers = wanted_.headers;
    call.headers.emplace_back("Accept-Encoding", "identity");
    call.resume_from = file.size();
    call.pause = pause_;
    if (file.size() > 0 && etag_.starts_with('"')) call.headers.emplace_back("If-Range", etag_);
    std::optional<uint64_t> total;
    call.on_head = [&](const HttpReply& head) {
      if (!head.ok()) return true;
      const std::string etag(head.header("etag"));
      if (head.status == 206 && etag != etag_ && wanted_.sha256.empty()) {
        throw_bad_input(wanted_.url + ": its content changed while it was downloaded",
                        "begin anew: remove " + part_.string());
      }
      if (head.status == 200 && file.size() > 0) file.clear();  // all of it comes again
      total = whole_size(head);
      if (total && wanted_.size && *total != *wanted_.size) {
        throw_bad_input(fmt::format("{}: the server says it has {} bytes, expected {}", wanted_.url,
                                    *total, *wanted_.size));
      }
      etag_ = etag;
      if (!etag_.empty()) write_file(tag_, etag_);
      return true;
    };
    const uint64_t most = wanted_.size.value_or(UINT64_MAX);
    call.on_data = [&](std::string_view bytes) {
      if (bytes.size() > most - file.size()) {
        throw_bad_input(fmt::format("{}: more than its {} bytes came", wanted_.url, most));
      }
      file.append(bytes);
      received_ += bytes.size();
      if (wanted_.on_progress) {
        wanted_.on_progress(file.size(), total.value_or(wanted_.size.value_or(0)));
      }
      return true;
    };
    HttpReply reply = client_.send(std::move(call), cancel_);
    if (!reply.ok()) return reply;
    const std::optional<uint64_t> expected = wanted_.size ? wanted_.size : total;
    if (expected && file.size() != *expected) {
      reply.failure = fmt::format("{} of {} bytes came", file.size(), *expected);
      return reply;
    }
    done_ = true;
    return reply;
  }

  HttpClient& client_;
  const Download& wanted_;
  const std::atomic<bool>* cancel_;
  fs::path part_, tag_;
  std::string etag_;
  std::chrono::milliseconds pause_{0};
  uint64_t received_ = 0;
  bool done_ = false;
};

}  // namespace

Downloaded download(HttpClient& client, const Download& wanted, const std::atomic<bool>* cancel) {
  return Fetch(client, wanted, cancel).run();
}

}  // namespace quern::net
