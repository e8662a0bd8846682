// Files: read whole with a limit, mapped, or written so that a name never holds half a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace quern {

namespace fs = std::filesystem;

// The whole of a regular file. Throws BadInput when it is missing, is no regular file (folder,
// FIFO, device), or is larger than `max_bytes`.
std::string read_file(const fs::path& path, uint64_t max_bytes = uint64_t{1} << 30);

// A regular file mapped read-only. If the file shrinks while mapped, touching the lost pages ends
// the program with one clear line and exit code 3 (see install_sigbus_handler).
class MappedFile {
 public:
  explicit MappedFile(const fs::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const fs::path& path() const noexcept { return path_; }
  size_t size() const noexcept { return size_; }
  const std::byte* data() const noexcept { return data_; }
  std::string_view text() const noexcept { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  fs::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Writes to a temporary name beside `path`; commit() flushes it to disk and renames it. Without
// commit() the temporary file is removed. Throws NoResources when the disk is full.
class AtomicFile {
 public:
  explicit AtomicFile(const fs::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::string_view bytes);
  void write(std::span<const std::byte> bytes);
  uint64_t written_bytes() const noexcept { return written_; }
  void commit();

 private:
  fs::path path_;
  fs::path temporary_;
  int descriptor_ = -1;
  uint64_t written_ = 0;
};

// AtomicFile for a text that is already in memory.
void write_file(const fs::path& path, std::string_view text);

// A folder built under a temporary name: commit() syncs every file in it, renames it to `path` and
// syncs the parent. Without commit() it is removed. `path` must not exist, or be an empty folder.
class AtomicFolder {
 public:
  explicit AtomicFolder(const fs::path& path);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const fs::path& temporary() const noexcept { return temporary_; }
  void commit();

 private:
  fs::path path_;
  fs::path temporary_;
  bool committed_ = false;
};

void sync_path(const fs::path& path);  // fsync of a file or folder

// True if the text begins like a Git LFS pointer, the commonest thing found instead of weights.
bool is_lfs_pointer(std::string_view text) noexcept;

// `name` joined to `folder`, if it stays inside: no absolute path, no "..", no NUL. `source` names
// the file that said so, for the message.
fs::path join_inside(const fs::path& folder, std::string_view name, std::string_view source);

// Makes a SIGBUS inside a MappedFile end with a message instead of a crash. Called once by main.
void install_sigbus_handler();

// SHA-256 of a text or a file as 64 hexadecimal digits.
std::string sha256(std::string_view bytes);
std::string sha256_file(const fs::path& path);

}  // namespace quern
