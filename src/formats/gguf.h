// GGUF files, as llama.cpp writes them: metadata, a table of tensors, their data. Whatever the file
// says is checked before it is used; the data stay mapped.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/file.h"
#include "core/shape.h"
#include "formats/gguf_blocks.h"

namespace quern {

// Types of metadata values, by the ids of the format.
enum class GgufValueType : uint32_t {
  U8,
  I8,
  U16,
  I16,
  U32,
  I32,
  F32,
  Bool,
  String,
  Array,
  U64,
  I64,
  F64
};

// Views of the mapped file.
struct GgufArray {
  GgufValueType element = GgufValueType::U8;
  std::vector<std::string_view> strings;  // of String
  std::vector<double> numbers;            // of any number type
  size_t size() const noexcept { return strings.size() + numbers.size(); }
};
using GgufValue = std::variant<int64_t, uint64_t, double, bool, std::string_view, GgufArray>;

struct GgufTensor {
  std::string name;
  GgufBlock block;
  Shape shape;  // outermost first, as everywhere here; the file has it the other way round
  const std::byte* data = nullptr;
  uint64_t bytes = 0;
};

// Throws BadInput naming the file and the key, tensor or offset for any breach of the format:
// version 2 or 3, little-endian; unique keys of at most 65,535 bytes; arrays of numbers or strings;
// tensors of 1 to 4 dims, of types that are read (Unsupported for others, by name), side by side in
// the order of the table, with nothing but padding between and after them. The first file of a
// model in several (NAME-00001-of-00003.gguf) brings the tensors of the others along.
class GgufFile {
 public:
  explicit GgufFile(const fs::path& path);

  const fs::path& path() const noexcept { return file_.path(); }
  uint32_t version() const noexcept { return version_; }
  const std::map<std::string, GgufValue, std::less<>>& metadata() const noexcept {
    return metadata_;
  }
  const std::vector<GgufTensor>& tensors() const noexcept { return tensors_; }
  const GgufTensor* find(std::string_view name) const noexcept;
  std::vector<fs::path> files() const;  // of which the model is made

  // Metadata by key: throw BadInput naming the key where it has another type or is out of range;
  // the _or forms take its absence, the others do not.
  bool has(std::string_view key) const { return metadata_.find(key) != metadata_.end(); }
  bool is_array(std::string_view key) const { return std::holds_alternative<GgufArray>(at(key)); }
  int64_t integer(std::string_view key, int64_t min, int64_t max) const;
  int64_t integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const;
  double number(std::string_view key, double min, double max) const;  // finite
  double number_or(std::string_view key, double fallback, double min, double max) const;
  std::string_view string(std::string_view key) const;
  bool boolean_or(std::string_view key, bool fallback) const;
  const std::vector<std::string_view>& strings(std::string_view key) const;
  const std::vector<double>& numbers(std::string_view key) const;

  [[noreturn]] void fail(const std::string& problem, std::string hint = {}) const;

 private:
  class Reader;
  enum class Part { First, Other };
  GgufFile(const fs::path& path, Part part);
  void open_other_parts();
  const GgufValue& at(std::string_view key) const;

  MappedFile file_;
  uint32_t version_ = 0;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t, std::less<>> places_;
  std::vector<std::unique_ptr<GgufFile>> parts_;  // the second file of a model in several, and on
};

// Whether a path names a GGUF file: by its ending.
bool is_gguf(const fs::path& path);

}  // namespace quern
