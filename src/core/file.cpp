#include "core/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <utility>

#include "core/error.h"

namespace quern {
namespace {

// Owns a file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int value) noexcept : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const noexcept { return value_; }

 private:
  int value_;
};

// Opens a regular file for reading and says how large it is. O_NONBLOCK keeps a FIFO from hanging.
int open_regular(const fs::path& path, uint64_t& size) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) throw_errno(path.string(), "cannot open");
  struct stat info {};
  if (::fstat(descriptor, &info) != 0) {
    ::close(descriptor);
    throw_errno(path.string(), "cannot stat");
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(descriptor);
    const char* found = S_ISDIR(info.st_mode)    ? "a folder"
                        : S_ISFIFO(info.st_mode) ? "a FIFO"
                        : S_ISSOCK(info.st_mode) ? "a socket"
                                                 : "a device";
    throw_bad_input(fmt::format("{}: is {}, expected a regular file", path.string(), found));
  }
  size = static_cast<uint64_t>(info.st_size);
  return descriptor;
}

// Ranges that are mapped now, for the SIGBUS handler, which may only read lock-free memory.
struct MappedRange {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  char name[128] = {};
};
constexpr size_t kMaxRanges = 1024;
MappedRange ranges[kMaxRanges];

void remember_range(const void* data, size_t size, const fs::path& path) noexcept {
  for (MappedRange& range : ranges) {
    uintptr_t expected = 0;
    const auto begin = reinterpret_cast<uintptr_t>(data);
    if (!range.begin.compare_exchange_strong(expected, begin)) continue;
    const std::string text = path.string();
    const size_t skip = text.size() < sizeof(range.name) ? 0 : text.size() - sizeof(range.name) + 1;
    std::strncpy(range.name, text.c_str() + skip, sizeof(range.name) - 1);
    range.end.store(begin + size);
    return;
  }
}

void forget_range(const void* data) noexcept {
  for (MappedRange& range : ranges) {
    if (range.begin.load() != reinterpret_cast<uintptr_t>(data)) continue;
    range.end.store(0);
    range.begin.store(0);
    return;
  }
}

// Only async-signal-safe calls: the line is put together in a buffer and written at once.
void on_sigbus(int, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (const MappedRange& range : ranges) {
    if (address < range.begin.load() || address >= range.end.load()) continue;
    char line[sizeof(range.name) + 128];
    size_t size = 0;
    for (const char* part : {"quern: ", range.name,
                             ": the file shrank or became unreadable while it was in use "
                             "(restore it and run again)\n"}) {
      const size_t length = std::strlen(part);
      std::memcpy(line + size, part, length);
      size += length;
    }
    [[maybe_unused]] const auto ignored = ::write(STDERR_FILENO, line, size);
    ::_exit(static_cast<int>(Kind::BadInput));
  }
  std::signal(SIGBUS, SIG_DFL);
  std::raise(SIGBUS);
}

// Of nobody else: two threads may write the same file.
fs::path temporary_name(const fs::path& path) {
  static std::atomic<unsigned> count{0};
  return path.string() + fmt::format(".tmp-{}-{}", ::getpid(), count++);
}

}  // namespace

std::string read_file(const fs::path& path, uint64_t max_bytes) {
  uint64_t size = 0;
  const Descriptor file(open_regular(path, size));
  if (size > max_bytes) {
    throw_bad_input(
        fmt::format("{}: has {} bytes, at most {} are accepted", path.string(), size, max_bytes));
  }
  std::string text(size, '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t got = ::read(file.get(), text.data() + done, text.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno(path.string(), "cannot read");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  text.resize(done);
  return text;
}

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  uint64_t size = 0;
  const Descriptor file(open_regular(path, size));
  size_ = size;
  if (size_ == 0) return;
  void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.get(), 0);
  if (mapped == MAP_FAILED) throw_errno(path.string(), "cannot map");
  data_ = static_cast<const std::byte*>(mapped);
  // Weights are read from end to end, again and again, and faster from large pages. Linux 6.16 and
  // later read a file of ext4 or XFS into such ones when asked to; others refuse or ignore it.
  constexpr uint64_t kWorthAsking = uint64_t{4} << 20;
  if (size_ >= kWorthAsking) ::madvise(mapped, size_, MADV_HUGEPAGE);
  remember_range(mapped, size_, path);
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  forget_range(data_);
  ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AtomicFile::AtomicFile(const fs::path& path) : path_(path), temporary_(temporary_name(path)) {
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw_errno(path_.string(), "cannot create");
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(descriptor_, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw_errno(path_.string(), "cannot write");
    bytes.remove_prefix(static_cast<size_t>(put));
    written_ += static_cast<uint64_t>(put);
  }
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) throw_errno(path_.string(), "cannot flush to disk");
  const int descriptor = std::exchange(descriptor_, -1);
  const bool closed = ::close(descriptor) == 0;
  if (!closed || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int code = errno;
    ::unlink(temporary_.c_str());
    errno = code;
    throw_errno(path_.string(), "cannot finish writing");
  }
  sync_path(path_.parent_path());
}

void write_file(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

AtomicFolder::AtomicFolder(const fs::path& path)
    : path_(path.has_filename() ? path : path.parent_path()), temporary_(temporary_name(path_)) {
  std::error_code ignored;
  if (fs::exists(path_, ignored) &&
      !(fs::is_directory(path_, ignored) && fs::is_empty(path_, ignored))) {
    throw Error(Kind::Misused, path_.string() + ": exists already",
                "name another one, or remove this one");
  }
  fs::remove_all(temporary_, ignored);
  std::error_code failure;
  fs::create_directories(temporary_, failure);
  if (failure) {
    errno = failure.value();
    throw_errno(path_.string(), "cannot create");
  }
}

AtomicFolder::~AtomicFolder() {
  if (committed_) return;
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

void AtomicFolder::commit() {
  for (const auto& entry : fs::recursive_directory_iterator(temporary_)) sync_path(entry.path());
  sync_path(temporary_);
  std::error_code ignored;
  if (fs::is_directory(path_, ignored)) fs::remove(path_, ignored);  // empty, or rename says so
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    throw_errno(path_.string(), "cannot finish writing");
  }
  committed_ = true;
  sync_path(path_.parent_path());
}

void sync_path(const fs::path& path) {
  const fs::path target = path.empty() ? fs::path(".") : path;
  const Descriptor file(::open(target.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0 || ::fsync(file.get()) != 0) {
    if (errno == EINVAL || errno == EROFS) return;  // file systems that cannot sync a folder
    throw_errno(target.string(), "cannot flush to disk");
  }
}

bool is_lfs_pointer(std::string_view text) noexcept {
  return text.starts_with("version https://git-lfs.github.com/spec/");
}

fs::path join_inside(const fs::path& folder, std::string_view name, std::string_view source) {
  const fs::path part{std::string(name)};
  const bool escapes =
      std::any_of(part.begin(), part.end(), [](const fs::path& p) { return p == ".."; });
  if (name.empty() || part.is_absolute() || escapes || name.find('\0') != name.npos) {
    throw_bad_input(fmt::format("{}: names the file '{}', which is not inside the model's folder",
                                source, printable(name)));
  }
  return folder / part;
}

void install_sigbus_handler() {
  struct sigaction action {};
  action.sa_sigaction = on_sigbus;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

std::string sha256(std::string_view bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr) != 1) {
    throw Error(Kind::Failed, "SHA-256 is not available in this OpenSSL");
  }
  std::string hex;
  for (unsigned int i = 0; i < size; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

std::string sha256_file(const fs::path& path) { return sha256(MappedFile(path).text()); }

}  // namespace quern
