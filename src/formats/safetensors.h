// The safetensors format: 8 bytes of header length, a JSON header, raw tensors. Everything the
// header says is checked against the format's own rules before a byte of it is used; the data stay
// mapped in the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/file.h"
#include "core/shape.h"
#include "formats/fp8.h"

namespace quern {

struct NamedTensor {
  std::string name;
  ConstTensorView view;  // memory of the file that was read
};

// One file. Throws BadInput naming the file and the tensor for any breach of the rules: header
// length and cap, JSON without duplicate keys, known dtypes, sizes that match shapes, data without
// hole, overlap or rest. Data that are not aligned to their type, as older writers left them, are
// copied.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const fs::path& path);

  const fs::path& path() const noexcept { return file_.path(); }
  const std::vector<NamedTensor>& tensors() const noexcept { return tensors_; }  // sorted by name
  std::optional<ConstTensorView> find(std::string_view name) const;
  ConstTensorView at(std::string_view name) const;  // throws BadInput if it is not there
  const std::map<std::string, std::string>& metadata() const noexcept { return metadata_; }
  uint64_t data_bytes() const noexcept { return data_bytes_; }

 private:
  MappedFile file_;
  std::vector<NamedTensor> tensors_;
  std::vector<std::vector<std::byte>> copies_;  // of tensors that are not aligned
  std::map<std::string, std::string> metadata_;
  uint64_t data_bytes_ = 0;
};

// A tensor that was read from another format: its own bytes, or (where there are none) a view of
// memory that somebody else keeps.
struct HeldTensor {
  std::string name;
  std::vector<std::byte> bytes;
  ConstTensorView view;
};

// All tensors of a checkpoint: a .safetensors file, or a folder with model.safetensors, or one with
// model.safetensors.index.json and its shards. A folder's tensors of FP8 are bfloat16 here, with
// their scales (formats/fp8.h) applied when they are first asked for; the scales are not listed.
class TensorStore {
 public:
  static TensorStore open(const fs::path& file_or_folder);
  // Tensors of another format, with what keeps the memory that their views look at: shared, as the
  // store is one of several that may.
  static TensorStore of_memory(const fs::path& source, std::vector<HeldTensor> tensors,
                               std::shared_ptr<const void> keeper);

  std::vector<std::string> names() const;  // sorted
  size_t size() const noexcept { return where_.size(); }
  std::optional<ConstTensorView> find(std::string_view name) const;
  ConstTensorView at(std::string_view name) const;   // throws BadInput if it is not there
  std::string file_of(std::string_view name) const;  // path of the file that holds it
  bool has_fp8() const noexcept { return !fp8_.empty(); }
  const fs::path& source() const noexcept { return source_; }
  uint64_t total_bytes() const noexcept;

 private:
  struct Place {
    const NamedTensor* tensor;
    const SafetensorsFile* file;  // null for held tensors
  };
  // A tensor of FP8 and, once it was asked for, what it is in bfloat16.
  struct Fp8 {
    ConstTensorView levels, scales;
    std::vector<std::byte> bytes;
  };
  static TensorStore open_files(const fs::path& file_or_folder);
  void add(std::unique_ptr<SafetensorsFile> file);
  void find_fp8(const fs::path& folder);
  ConstTensorView decode(const std::string& name, Fp8& tensor) const;

  fs::path source_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<std::vector<std::byte>> held_bytes_;
  std::unique_ptr<std::vector<NamedTensor>> held_;
  std::shared_ptr<const void> keeper_;
  std::map<std::string, Place, std::less<>> where_;
  std::shared_ptr<std::mutex> fp8_mutex_;
  mutable std::map<std::string, Fp8, std::less<>> fp8_;
  Fp8Config fp8_config_;
};

// What a file will hold, in the order it will be written.
struct PlannedTensor {
  std::string name;
  DType dtype;
  Shape shape;

  uint64_t bytes() const noexcept {
    return static_cast<uint64_t>(shape.count()) * size_bytes(dtype);
  }
};

// Writes one file, tensor by tensor in the planned order; it appears under its name at finish().
class SafetensorsWriter {
 public:
  SafetensorsWriter(const fs::path& path, std::vector<PlannedTensor> plan,
                    const std::map<std::string, std::string>& metadata = {});

  // The next tensor's bytes, whole or in pieces.
  void write(std::span<const std::byte> bytes);
  void finish();  // throws if less was written than planned

 private:
  AtomicFile file_;
  uint64_t left_ = 0;
};

// Writes a checkpoint into a folder: model.safetensors, or shards of at most `max_shard_bytes` with
// their index, as Hugging Face names them.
class CheckpointWriter {
 public:
  CheckpointWriter(fs::path folder, std::vector<PlannedTensor> plan,
                   uint64_t max_shard_bytes = uint64_t{5} << 30);

  void write(std::span<const std::byte> bytes);
  void finish();

 private:
  struct Shard {
    std::string file;
    std::vector<PlannedTensor> plan;
    uint64_t bytes = 0;
  };
  void open_next();

  fs::path folder_;
  std::vector<Shard> shards_;
  size_t next_ = 0;
  uint64_t left_in_shard_ = 0;
  std::unique_ptr<SafetensorsWriter> writer_;
};

// A tensor of any float type as floats, or of any integer type as int64. Throws BadInput for
// others.
std::vector<float> to_floats(const ConstTensorView& tensor, std::string_view name);
std::vector<int64_t> to_integers(const ConstTensorView& tensor, std::string_view name);

// The bytes of a span of numbers, for the writers.
template <class T>
std::span<const std::byte> bytes_of(std::span<const T> values) noexcept {
  return std::as_bytes(values);
}

// Tensors with values that are no numbers, for `quern verify` and for loading norms.
struct NonFinite {
  std::string name;
  int64_t count;
};
std::vector<NonFinite> find_nonfinite(const TensorStore& store);
int64_t count_nonfinite(const ConstTensorView& tensor) noexcept;

}  // namespace quern
