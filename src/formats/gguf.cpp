#include "formats/gguf.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "core/checked.h"
#include "core/error.h"
#include "core/utf8.h"

namespace quern {
namespace {

constexpr uint64_t kMaxKeyBytes = 65'535;
constexpr uint64_t kMaxNameBytes = 64;
constexpr uint32_t kMaxAlignment = 1 << 16;
constexpr int64_t kMaxDim = int64_t{1} << 42;

// Bytes of a value of each type in the file; 0 for strings and arrays.
constexpr uint64_t kValueBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

}  // namespace

// Takes values off the file one after another, never past its end.
class GgufFile::Reader {
 public:
  explicit Reader(const GgufFile& owner)
      : owner_(owner), data_(owner.file_.data()), size_(owner.file_.size()) {}

  size_t offset() const { return at_; }
  size_t left() const { return size_ - at_; }

  template <class T>
  T take(std::string_view what) {
    if (left() < sizeof(T)) ends_inside(what);
    T value;
    std::memcpy(&value, data_ + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  std::string_view text(std::string_view what, uint64_t max_bytes) {
    const auto length = take<uint64_t>(what);
    if (length > max_bytes) {
      owner_.fail(fmt::format("{} at byte {} has {} bytes, at most {} are allowed", what, at_ - 8,
                              length, max_bytes));
    }
    if (length > left()) ends_inside(what);
    const std::string_view out(reinterpret_cast<const char*>(data_ + at_), length);
    at_ += length;
    return out;
  }
  // A value whose type's bytes are all there. `key` is for messages.
  GgufValue value(GgufValueType type, const std::string& key) {
    const std::string what = fmt::format("the value of '{}'", printable(key, 80));
    switch (type) {
      case GgufValueType::U8:
        return uint64_t{take<uint8_t>(what)};
      case GgufValueType::I8:
        return int64_t{take<int8_t>(what)};
      case GgufValueType::U16:
        return uint64_t{take<uint16_t>(what)};
      case GgufValueType::I16:
        return int64_t{take<int16_t>(what)};
      case GgufValueType::U32:
        return uint64_t{take<uint32_t>(what)};
      case GgufValueType::I32:
        return int64_t{take<int32_t>(what)};
      case GgufValueType::U64:
        return take<uint64_t>(what);
      case GgufValueType::I64:
        return take<int64_t>(what);
      case GgufValueType::F32:
        return double{take<float>(what)};
      case GgufValueType::F64:
        return take<double>(what);
      case GgufValueType::Bool: {
        const auto byte = take<uint8_t>(what);
        if (byte > 1) owner_.fail(fmt::format("{} is a bool of {}, expected 0 or 1", what, byte));
        return byte == 1;
      }
      case GgufValueType::String:
        return text(what, left());
      case GgufValueType::Array:
        return array(key);
    }
    owner_.fail(what + " has no type");
  }
  GgufValueType type(const std::string& key) {
    const auto id = take<uint32_t>(fmt::format("the type of '{}'", printable(key, 80)));
    if (id >= std::size(kValueBytes)) {
      owner_.fail(fmt::format("'{}' has the value type {}, expected 0 to {}", printable(key, 80),
                              id, std::size(kValueBytes) - 1));
    }
    return static_cast<GgufValueType>(id);
  }

 private:
  GgufArray array(const std::string& key) {
    GgufArray out;
    out.element = type(key);
    const std::string what = fmt::format("the array '{}'", printable(key, 80));
    if (out.element == GgufValueType::Array) owner_.fail(what + " holds arrays");
    const auto count = take<uint64_t>(what);
    const bool strings = out.element == GgufValueType::String;
    const uint64_t each = strings ? 8 : kValueBytes[static_cast<size_t>(out.element)];
    if (count > left() / each) {
      owner_.fail(fmt::format("{} has {} items, more than the file has room for", what, count));
    }
    if (strings) {
      out.strings.reserve(count);
      for (uint64_t i = 0; i < count; ++i) out.strings.push_back(text(what, left()));
      return out;
    }
    out.numbers.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      out.numbers.push_back(std::visit(
          [](const auto& item) -> double {
            if constexpr (std::is_arithmetic_v<std::decay_t<decltype(item)>>) {
              return static_cast<double>(item);
            } else {
              return 0;
            }
          },
          value(out.element, key)));
    }
    return out;
  }
  [[noreturn]] void ends_inside(std::string_view what) const {
    owner_.fail(fmt::format("ends inside {}, at byte {}", what, at_), "the file is cut off");
  }

  const GgufFile& owner_;
  const std::byte* data_;
  size_t size_;
  size_t at_ = 0;
};

void GgufFile::fail(const std::string& problem, std::string hint) const {
  throw_bad_input(path().string() + ": " + problem, std::move(hint));
}

GgufFile::GgufFile(const fs::path& path) : GgufFile(path, Part::First) { open_other_parts(); }

void GgufFile::open_other_parts() {
  const int64_t count = integer_or("split.count", 0, 0, 1 << 16);
  if (count < 2) return;
  const std::string own = fmt::format("-00001-of-{:05}.gguf", count);
  const std::string name = path().filename().string();
  if (integer_or("split.no", 0, 0, count - 1) != 0 || !name.ends_with(own)) {
    fail(fmt::format("is one of {} files of a model, and not the first", count),
         "name the one that ends in " + own);
  }
  for (int64_t i = 1; i < count; ++i) {
    const fs::path other =
        path().parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf",
                                           name.substr(0, name.size() - own.size()), i + 1, count);
    if (!fs::exists(other)) {
      fail(fmt::format("the model's file {} is missing", other.filename().string()),
           "copy all of them into the folder");
    }
    parts_.emplace_back(new GgufFile(other, Part::Other));
    const GgufFile& part = *parts_.back();
    if (part.integer("split.no", 0, count - 1) != i ||
        part.integer("split.count", 0, 1 << 16) != count) {
      part.fail(fmt::format("does not say that it is file {} of {}", i + 1, count));
    }
    for (const GgufTensor& tensor : part.tensors_) {
      if (!places_.try_emplace(tensor.name, tensors_.size()).second) {
        part.fail(fmt::format("has the tensor '{}', which an earlier file has",
                              printable(tensor.name, 80)));
      }
      tensors_.push_back(tensor);
    }
  }
  const auto all = static_cast<int64_t>(tensors_.size());
  if (const int64_t said = integer_or("split.tensors.count", all, 0, int64_t{1} << 31);
      said != all) {
    fail(fmt::format("says that the model has {} tensors, its files have {}", said, all));
  }
}

std::vector<fs::path> GgufFile::files() const {
  std::vector<fs::path> out = {path()};
  for (const auto& part : parts_) out.push_back(part->path());
  return out;
}

GgufFile::GgufFile(const fs::path& path, Part) : file_(path) {
  if (is_lfs_pointer(file_.text())) {
    fail("is a Git LFS pointer, not the file itself", "fetch it with 'git lfs pull'");
  }
  Reader reader(*this);
  if (reader.take<uint32_t>("the magic") != 0x46554747) {
    fail("does not begin with 'GGUF'", "is it a GGUF file?");
  }
  version_ = reader.take<uint32_t>("the version");
  if (version_ == 0x02000000 || version_ == 0x03000000) {
    fail("is big-endian", "only little-endian files are read");
  }
  if (version_ != 2 && version_ != 3) {
    fail(fmt::format("is of version {}, expected 2 or 3", version_));
  }
  const auto tensor_count = reader.take<uint64_t>("the number of tensors");
  const auto key_count = reader.take<uint64_t>("the number of keys");
  // The smallest key takes 8 + 1 + 4 + 1 bytes, the smallest tensor 8 + 1 + 4 + 8 + 4 + 8.
  if (key_count > reader.left() / 14) {
    fail(fmt::format("has {} keys, more than the file has room for", key_count));
  }
  if (tensor_count > reader.left() / 33) {
    fail(fmt::format("has {} tensors, more than the file has room for", tensor_count));
  }
  for (uint64_t i = 0; i < key_count; ++i) {
    const std::string key(reader.text("a key", kMaxKeyBytes));
    if (key.empty()) fail(fmt::format("has a key without a name before byte {}", reader.offset()));
    if (!utf8::is_valid(key)) {
      fail(fmt::format("the key '{}' is not valid UTF-8", printable(key, 80)));
    }
    const GgufValueType type = reader.type(key);
    if (!metadata_.try_emplace(key, reader.value(type, key)).second) {
      fail(fmt::format("has the key '{}' twice", printable(key, 80)));
    }
  }
  uint64_t alignment = 32;
  if (const auto it = metadata_.find("general.alignment"); it != metadata_.end()) {
    const auto* value = std::get_if<uint64_t>(&it->second);
    if (value == nullptr || *value < 8 || *value > kMaxAlignment || !std::has_single_bit(*value)) {
      fail("general.alignment is not a power of two from 8 to 65536");
    }
    alignment = *value;
  }
  std::vector<uint64_t> offsets;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    GgufTensor tensor;
    tensor.name = reader.text("a tensor's name", kMaxNameBytes);
    const std::string shown = fmt::format("the tensor '{}'", printable(tensor.name, 80));
    if (tensor.name.empty()) fail(fmt::format("has a tensor without a name, number {}", i));
    if (!utf8::is_valid(tensor.name)) fail(shown + " has a name that is not valid UTF-8");
    if (!places_.try_emplace(tensor.name, tensors_.size()).second) fail("has " + shown + " twice");
    const auto rank = reader.take<uint32_t>(shown);
    if (rank < 1 || rank > 4) fail(fmt::format("{} has {} dims, expected 1 to 4", shown, rank));
    int64_t dims[4], count = 1;
    for (uint32_t d = 0; d < rank; ++d) {
      const auto dim = static_cast<int64_t>(reader.take<uint64_t>(shown));
      if (dim < 1 || dim > kMaxDim) fail(fmt::format("{} has a dim of {}", shown, dim));
      dims[rank - 1 - d] = dim;
      count = checked_mul(count, dim, path.string() + ": " + shown);
    }
    tensor.shape = Shape(std::span<const int64_t>(dims, rank));
    const auto type = reader.take<uint32_t>(shown);
    const auto block = gguf_block(type);
    if (!block) {
      const std::string_view name = gguf_type_name(type);
      if (name.empty()) fail(fmt::format("{} has the type {}, which there is not", shown, type));
      throw Error(
          Kind::Unsupported,
          fmt::format("{}: {} is of type {}, which is not read", path.string(), shown, name),
          "known are F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ4_NL and IQ4_XS");
    }
    if (dims[rank - 1] % block->weights != 0) {
      fail(fmt::format("{} has rows of {}, which blocks of {} ({}) do not divide", shown,
                       dims[rank - 1], block->weights, block->name));
    }
    tensor.block = *block;
    tensor.bytes = checked_mul(static_cast<uint64_t>(count / block->weights),
                               static_cast<uint64_t>(block->bytes), path.string() + ": " + shown);
    offsets.push_back(reader.take<uint64_t>(shown));
    tensors_.push_back(std::move(tensor));
  }

  const auto aligned = [&](uint64_t offset) {
    return checked_add(offset, alignment - 1, path.string()) / alignment * alignment;
  };
  const uint64_t begin = aligned(reader.offset());
  uint64_t expected = 0, end = reader.offset();
  for (size_t i = 0; i < tensors_.size(); ++i) {
    GgufTensor& tensor = tensors_[i];
    if (offsets[i] != expected) {
      fail(fmt::format("the tensor '{}' is at the offset {}, expected {}",
                       printable(tensor.name, 80), offsets[i], expected),
           "tensors stand side by side, in the order of the table");
    }
    end = checked_add(checked_add(begin, offsets[i], path.string()), tensor.bytes, path.string());
    if (end > file_.size()) {
      fail(fmt::format("the tensor '{}' ends at byte {}, the file at {}",
                       printable(tensor.name, 80), end, file_.size()),
           "the file is cut off");
    }
    tensor.data = file_.data() + begin + offsets[i];
    expected = aligned(offsets[i] + tensor.bytes);
  }
  if (file_.size() > aligned(end)) {
    fail(fmt::format("has {} bytes after its last tensor", file_.size() - end));
  }
}

const GgufTensor* GgufFile::find(std::string_view name) const noexcept {
  const auto it = places_.find(name);
  return it == places_.end() ? nullptr : &tensors_[it->second];
}

const GgufValue& GgufFile::at(std::string_view key) const {
  const auto it = metadata_.find(key);
  if (it == metadata_.end()) fail(fmt::format("lacks the key '{}'", key));
  return it->second;
}

int64_t GgufFile::integer(std::string_view key, int64_t min, int64_t max) const {
  const GgufValue& value = at(key);
  const auto* whole = std::get_if<uint64_t>(&value);
  const auto* negative = std::get_if<int64_t>(&value);
  if (whole == nullptr && negative == nullptr) {
    fail(fmt::format("the key '{}' is no integer", key));
  }
  const bool fits = whole != nullptr ? std::in_range<int64_t>(*whole) : true;
  const int64_t number = whole != nullptr ? static_cast<int64_t>(*whole) : *negative;
  if (!fits || number < min || number > max) {
    fail(fmt::format("the key '{}' is {}, expected {} to {}", key,
                     whole != nullptr ? fmt::to_string(*whole) : fmt::to_string(number), min, max));
  }
  return number;
}

int64_t GgufFile::integer_or(std::string_view key, int64_t fallback, int64_t min,
                             int64_t max) const {
  return has(key) ? integer(key, min, max) : fallback;
}

double GgufFile::number(std::string_view key, double min, double max) const {
  const auto* value = std::get_if<double>(&at(key));
  if (value == nullptr) fail(fmt::format("the key '{}' is no floating-point number", key));
  if (!(*value >= min && *value <= max)) {
    fail(fmt::format("the key '{}' is {:g}, expected {:g} to {:g}", key, *value, min, max));
  }
  return *value;
}

double GgufFile::number_or(std::string_view key, double fallback, double min, double max) const {
  return has(key) ? number(key, min, max) : fallback;
}

std::string_view GgufFile::string(std::string_view key) const {
  const auto* value = std::get_if<std::string_view>(&at(key));
  if (value == nullptr) fail(fmt::format("the key '{}' is no string", key));
  if (!utf8::is_valid(*value)) fail(fmt::format("the key '{}' is not valid UTF-8", key));
  return *value;
}

bool GgufFile::boolean_or(std::string_view key, bool fallback) const {
  if (!has(key)) return fallback;
  const auto* value = std::get_if<bool>(&at(key));
  if (value == nullptr) fail(fmt::format("the key '{}' is no bool", key));
  return *value;
}

const std::vector<std::string_view>& GgufFile::strings(std::string_view key) const {
  const auto* value = std::get_if<GgufArray>(&at(key));
  if (value == nullptr || value->element != GgufValueType::String) {
    fail(fmt::format("the key '{}' is no array of strings", key));
  }
  return value->strings;
}

const std::vector<double>& GgufFile::numbers(std::string_view key) const {
  const auto* value = std::get_if<GgufArray>(&at(key));
  if (value == nullptr || value->element == GgufValueType::String) {
    fail(fmt::format("the key '{}' is no array of numbers", key));
  }
  return value->numbers;
}

bool is_gguf(const fs::path& path) { return path.extension() == ".gguf"; }

}  // namespace quern
