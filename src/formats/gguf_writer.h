// Writes a GGUF file of version 3.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "core/shape.h"
#include "formats/gguf.h"

namespace quern {

// First the metadata, then the table of tensors, then begin() and the tensors' bytes in that order.
class GgufWriter {
 public:
  explicit GgufWriter(fs::path path) : path_(std::move(path)) {}

  void add_u32(std::string_view key, uint32_t value);
  void add_i32(std::string_view key, int32_t value);
  void add_f32(std::string_view key, float value);
  void add_bool(std::string_view key, bool value);
  void add_string(std::string_view key, std::string_view value);
  void add_strings(std::string_view key, const std::vector<std::string>& values);
  void add_bools(std::string_view key, const std::vector<bool>& values);
  void add_i32s(std::string_view key, const std::vector<int32_t>& values);
  void add_f32s(std::string_view key, const std::vector<float>& values);
  void add_tensor(std::string_view name, const GgufBlock& block, const Shape& shape);

  void begin();
  void write(std::span<const std::byte> bytes);  // the next tensor, whole
  void finish();                                 // throws if fewer tensors were written

 private:
  void key(std::string_view name, GgufValueType type);

  fs::path path_;
  std::string metadata_, table_;
  uint64_t keys_ = 0, offset_ = 0;
  std::vector<uint64_t> sizes_;
  size_t written_ = 0;
  std::unique_ptr<AtomicFile> file_;
};

}  // namespace quern
