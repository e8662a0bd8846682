// Packed matrices kept in a file beside their checkpoint, so that the next start maps them instead
// of packing again. The file belongs to one version of Quern: where it does not fit, it is made
// again.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "compute/packed.h"
#include "core/file.h"
#include "core/thread_pool.h"

namespace quern {

using PackedFileId = std::array<uint64_t, 2>;

// What the matrices were packed from: the names, sizes and times of the checkpoint's files.
PackedFileId packed_file_id(std::span<const fs::path> files);

class PackedFile {
 public:
  // "packed.quern" in a checkpoint's folder; of a GGUF file its name with ".packed" behind.
  static fs::path path_of(const fs::path& model);

  // The matrices with these names, in the mapping. Nothing where there is no such file; where it is
  // of other weights or another version, cut off or damaged (each matrix has a hash), the log says
  // so. Whatever the bytes are, a matrix stays inside the file. `pool` may be null.
  static std::optional<PackedFile> open(const fs::path& path, const PackedFileId& id,
                                        ThreadPool* pool);

  // Replaces the file. Throws what AtomicFile does.
  using Named = std::pair<std::string, const PackedMatrix*>;
  static void write(const fs::path& path, const PackedFileId& id, std::span<const Named> matrices);

  // The matrix, whose memory stays the file's, if it has the shape.
  std::optional<PackedMatrix> find(const std::string& name, const PackedMatrix& shape) const;

 private:
  explicit PackedFile(MappedFile file) : file_(std::move(file)) {}
  const char* read(const PackedFileId& id, ThreadPool* pool);  // what is wrong, or null

  struct Entry;
  MappedFile file_;
  std::span<const Entry> entries_;
};

}  // namespace quern
