#include "formats/gguf_writer.h"

#include <bit>

#include "core/error.h"

namespace quern {
namespace {

constexpr uint64_t kAlignment = 32;  // what the format has where a file does not say

template <class T>
void put(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) {
    out += static_cast<char>(static_cast<uint64_t>(value) >> (8 * i) & 0xFF);
  }
}
void put_text(std::string& out, std::string_view text) {
  put(out, uint64_t{text.size()});
  out += text;
}
uint64_t padding(uint64_t size) { return (kAlignment - size % kAlignment) % kAlignment; }

}  // namespace

void GgufWriter::key(std::string_view name, GgufValueType type) {
  put_text(metadata_, name);
  put(metadata_, static_cast<uint32_t>(type));
  ++keys_;
}
void GgufWriter::add_u32(std::string_view name, uint32_t value) {
  key(name, GgufValueType::U32);
  put(metadata_, value);
}
void GgufWriter::add_i32(std::string_view name, int32_t value) {
  key(name, GgufValueType::I32);
  put(metadata_, static_cast<uint32_t>(value));
}
void GgufWriter::add_f32(std::string_view name, float value) {
  key(name, GgufValueType::F32);
  put(metadata_, std::bit_cast<uint32_t>(value));
}
void GgufWriter::add_bool(std::string_view name, bool value) {
  key(name, GgufValueType::Bool);
  put(metadata_, static_cast<uint8_t>(value));
}
void GgufWriter::add_string(std::string_view name, std::string_view value) {
  key(name, GgufValueType::String);
  put_text(metadata_, value);
}
void GgufWriter::add_strings(std::string_view name, const std::vector<std::string>& values) {
  key(name, GgufValueType::Array);
  put(metadata_, static_cast<uint32_t>(GgufValueType::String));
  put(metadata_, uint64_t{values.size()});
  for (const std::string& value : values) put_text(metadata_, value);
}
void GgufWriter::add_bools(std::string_view name, const std::vector<bool>& values) {
  key(name, GgufValueType::Array);
  put(metadata_, static_cast<uint32_t>(GgufValueType::Bool));
  put(metadata_, uint64_t{values.size()});
  for (const bool value : values) put(metadata_, static_cast<uint8_t>(value));
}
void GgufWriter::add_i32s(std::string_view name, const std::vector<int32_t>& values) {
  key(name, GgufValueType::Array);
  put(metadata_, static_cast<uint32_t>(GgufValueType::I32));
  put(metadata_, uint64_t{values.size()});
  for (const int32_t value : values) put(metadata_, static_cast<uint32_t>(value));
}

void GgufWriter::add_f32s(std::string_view name, const std::vector<float>& values) {
  key(name, GgufValueType::Array);
  put(metadata_, static_cast<uint32_t>(GgufValueType::F32));
  put(metadata_, uint64_t{values.size()});
  for (const float value : values) put(metadata_, std::bit_cast<uint32_t>(value));
}

void GgufWriter::add_tensor(std::string_view name, const GgufBlock& block, const Shape& shape) {
  put_text(table_, name);
  put(table_, static_cast<uint32_t>(shape.rank()));
  for (size_t d = shape.rank(); d-- > 0;) put(table_, static_cast<uint64_t>(shape[d]));
  put(table_, static_cast<uint32_t>(block.type));
  put(table_, offset_);
  sizes_.push_back(static_cast<uint64_t>(shape.count() / block.weights * block.bytes));
  offset_ += sizes_.back() + padding(sizes_.back());
}

void GgufWriter::begin() {
  std::string head = "GGUF";
  put(head, uint32_t{3});
  put(head, uint64_t{sizes_.size()});
  put(head, keys_);
  head += metadata_ + table_;
  head.append(padding(head.size()), '\0');
  file_ = std::make_unique<AtomicFile>(path_);
  file_->write(head);
}

void GgufWriter::write(std::span<const std::byte> bytes) {
  if (written_ >= sizes_.size() || bytes.size() != sizes_[written_]) {
    throw Error(Kind::Failed, "a tensor is not as large as it was planned");
  }
  file_->write(bytes);
  file_->write(std::string(padding(sizes_[written_++]), '\0'));
}

void GgufWriter::finish() {
  if (written_ != sizes_.size()) throw Error(Kind::Failed, "tensors are missing");
  file_->commit();
}

}  // namespace quern
