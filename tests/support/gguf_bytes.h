// GGUF files put together byte by byte, good ones and others.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quern::test {

template <class T>
std::string le(T value) {
  std::string out;
  for (size_t i = 0; i < sizeof(T); ++i) {
    out += static_cast<char>(static_cast<uint64_t>(value) >> (8 * i) & 0xFF);
  }
  return out;
}
inline std::string text(std::string_view value) {
  return le(uint64_t{value.size()}) + std::string(value);
}
inline std::string kv_string(std::string_view key, std::string_view value) {
  return text(key) + le(uint32_t{8}) + text(value);
}
inline std::string kv_u32(std::string_view key, uint32_t value) {
  return text(key) + le(uint32_t{4}) + le(value);
}
inline std::string kv_f32(std::string_view key, float value) {
  return text(key) + le(uint32_t{6}) + le(std::bit_cast<uint32_t>(value));
}
inline std::string kv_bool(std::string_view key, uint8_t value) {
  return text(key) + le(uint32_t{7}) + le(value);
}
inline std::string kv_strings(std::string_view key, const std::vector<std::string>& values) {
  std::string out = text(key) + le(uint32_t{9}) + le(uint32_t{8}) + le(uint64_t{values.size()});
  for (const std::string& value : values) out += text(value);
  return out;
}
inline std::string kv_i32s(std::string_view key, const std::vector<int32_t>& values) {
  std::string out = text(key) + le(uint32_t{9}) + le(uint32_t{5}) + le(uint64_t{values.size()});
  for (const int32_t value : values) out += le(static_cast<uint32_t>(value));
  return out;
}
inline std::string kv_f32s(std::string_view key, const std::vector<float>& values) {
  std::string out = text(key) + le(uint32_t{9}) + le(uint32_t{6}) + le(uint64_t{values.size()});
  for (const float value : values) out += le(std::bit_cast<uint32_t>(value));
  return out;
}
// Dims innermost first, as the file has them.
inline std::string tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                          uint64_t offset) {
  std::string out = text(name) + le(static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) out += le(dim);
  return out + le(type) + le(offset);
}

// What a file is made of; a test changes a part.
struct GgufBytes {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::vector<std::string> keys = {kv_string("general.architecture", "llama")};
  std::vector<std::string> tensors = {tensor("a", {8}, 0, 0), tensor("b", {4, 2}, 1, 32)};
  uint64_t data_bytes = 48;
  int64_t extra_keys = 0, extra_tensors = 0;  // more than there are, in the counts

  std::string header() const {
    std::string out =
        magic + le(version) +
        le(static_cast<uint64_t>(static_cast<int64_t>(tensors.size()) + extra_tensors)) +
        le(static_cast<uint64_t>(static_cast<int64_t>(keys.size()) + extra_keys));
    for (const std::string& key : keys) out += key;
    for (const std::string& entry : tensors) out += entry;
    return out;
  }
  std::string file() const {
    std::string out = header();
    out.append((32 - out.size() % 32) % 32, '\0');
    return out + std::string(data_bytes, '\0');
  }
};

}  // namespace quern::test
