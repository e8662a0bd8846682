#include "model/packed_file.h"

#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/log.h"
#include "formats/gguf.h"

namespace quern {
namespace {

constexpr std::array<char, 8> kMagic = {'Q', 'U', 'E', 'R', 'N', 'P', 'K', 'D'};
constexpr uint64_t kVersion = 3;  // of this file and of the strips' layout (compute/packed.h)
constexpr uint64_t kAlignment = 4096;

struct Header {
  std::array<char, 8> magic = kMagic;
  uint64_t version = kVersion;
  PackedFileId id = {};
  uint64_t entries = 0;
  uint64_t entries_hash = 0;
};

uint64_t hash_of(const void* data, uint64_t bytes) noexcept { return XXH3_64bits(data, bytes); }
PackedFileId hash_of(std::string_view text) noexcept {
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return {hash.low64, hash.high64};
}
uint64_t aligned(uint64_t offset) noexcept {
  return (offset + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

struct PackedFile::Entry {
  PackedFileId name = {};
  int64_t rows = 0, cols = 0, group = 0;
  int32_t bits = 0, scales = 0, activation_bits = 0, unused = 0;
  uint64_t offset = 0, bytes = 0, hash = 0;

  PackedMatrix shape() const {
    return {.bits = bits,
            .scales = static_cast<PackedScales>(scales),
            .rows = rows,
            .cols = cols,
            .group = group,
            .activation_bits = activation_bits};
  }
};

PackedFileId packed_file_id(std::span<const fs::path> files) {
  std::string text;
  for (const fs::path& file : files) {
    text += fmt::format("{}\n{}\n{}\n", file.filename().string(), fs::file_size(file),
                        fs::last_write_time(file).time_since_epoch().count());
  }
  return hash_of(text);
}

fs::path PackedFile::path_of(const fs::path& model) {
  return is_gguf(model) ? fs::path(model.string() + ".packed") : model / "packed.quern";
}

std::optional<PackedFile> PackedFile::open(const fs::path& path, const PackedFileId& id,
                                           ThreadPool* pool) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::nullopt;
  try {
    PackedFile out{MappedFile(path)};
    const char* wrong = out.read(id, pool);
    if (wrong == nullptr) return out;
    log::warning(fmt::format("{}: {}; it is made again", path.string(), wrong));
  } catch (const Error& error) {
    log::warning(fmt::format("the packed weights are not read: {}", error.what()));
  }
  return std::nullopt;
}

const char* PackedFile::read(const PackedFileId& id, ThreadPool* pool) {
  Header header;
  if (file_.size() < sizeof header) return "is cut off";
  std::memcpy(&header, file_.data(), sizeof header);
  if (header.magic != kMagic) return "is no file of packed weights";
  if (header.version != kVersion) return "is another version's";
  if (header.id != id) return "was made from other weights";
  if (header.entries > (file_.size() - sizeof header) / sizeof(Entry)) return "is cut off";
  const std::byte* table = file_.data() + sizeof header;
  if (hash_of(table, header.entries * sizeof(Entry)) != header.entries_hash) return "is damaged";
  entries_ = {reinterpret_cast<const Entry*>(table), header.entries};
  for (const Entry& entry : entries_) {
    if (entry.offset % kAlignment != 0 || entry.offset > file_.size() ||
        entry.bytes > file_.size() - entry.offset) {
      return "is cut off";
    }
  }
  std::atomic<bool> damaged{false};
  const auto check = [&](int64_t begin, int64_t end, int) {
    for (const Entry& entry :
         entries_.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin))) {
      if (hash_of(file_.data() + entry.offset, entry.bytes) != entry.hash) damaged = true;
    }
  };
  const auto count = static_cast<int64_t>(entries_.size());
  if (pool != nullptr) {
    pool->parallel_for(count, 1, check);
  } else {
    check(0, count, 0);
  }
  return damaged ? "is damaged" : nullptr;
}

void PackedFile::write(const fs::path& path, const PackedFileId& id,
                       std::span<const Named> matrices) {
  Header header = {.id = id, .entries = matrices.size()};
  std::vector<Entry> entries;
  uint64_t offset = sizeof header + matrices.size() * sizeof(Entry);
  for (const auto& [name, matrix] : matrices) {
    offset = aligned(offset);
    const auto bytes = static_cast<uint64_t>(matrix->bytes());
    entries.push_back({.name = hash_of(name),
                       .rows = matrix->rows,
                       .cols = matrix->cols,
                       .group = matrix->group,
                       .bits = matrix->bits,
                       .scales = static_cast<int32_t>(matrix->scales),
                       .activation_bits = matrix->activation_bits,
                       .offset = offset,
                       .bytes = bytes,
                       .hash = hash_of(matrix->memory.data(), bytes)});
    offset += bytes;
  }
  header.entries_hash = hash_of(entries.data(), entries.size() * sizeof(Entry));
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&header, 1)));
  file.write(std::as_bytes(std::span(entries)));
  for (size_t i = 0; i < entries.size(); ++i) {
    file.write(std::string(entries[i].offset - file.written_bytes(), '\0'));
    file.write(std::span(matrices[i].second->memory.data(), entries[i].bytes));
  }
  file.commit();
}

std::optional<PackedMatrix> PackedFile::find(const std::string& name,
                                             const PackedMatrix& shape) const {
  const PackedFileId wanted = hash_of(name);
  for (const Entry& entry : entries_) {
    if (entry.name != wanted) continue;
    const bool same = entry.rows == shape.rows && entry.cols == shape.cols &&
                      entry.group == shape.group && entry.bits == shape.bits &&
                      entry.scales == static_cast<int32_t>(shape.scales) &&
                      entry.activation_bits == shape.activation_bits &&
                      entry.bytes == static_cast<uint64_t>(shape.bytes());
    if (!same) return std::nullopt;
    PackedMatrix out = entry.shape();
    // Nobody writes to the memory of packed weights that have been made.
    auto* data = const_cast<std::byte*>(file_.data() + entry.offset);
    out.memory = Tensor(DType::U8, {out.bytes()}, Buffer(data, BufferDeleter{}));
    return out;
  }
  return std::nullopt;
}

}  // namespace quern
