#include "core/dtype.h"

#include <string>
#include <utility>

#include "core/ascii.h"

namespace quern {
namespace {

struct Row {
  DType dtype;
  size_t size;
  std::string_view name;
};
constexpr Row kRows[] = {
    {DType::F64, 8, "F64"},   {DType::F32, 4, "F32"},        {DType::F16, 2, "F16"},
    {DType::BF16, 2, "BF16"}, {DType::I64, 8, "I64"},        {DType::I32, 4, "I32"},
    {DType::I16, 2, "I16"},   {DType::I8, 1, "I8"},          {DType::U64, 8, "U64"},
    {DType::U32, 4, "U32"},   {DType::U16, 2, "U16"},        {DType::U8, 1, "U8"},
    {DType::Bool, 1, "BOOL"}, {DType::F8E4M3, 1, "F8_E4M3"},
};

}  // namespace

size_t size_bytes(DType dtype) noexcept { return kRows[static_cast<size_t>(dtype)].size; }

std::string_view name(DType dtype) noexcept { return kRows[static_cast<size_t>(dtype)].name; }

std::optional<DType> dtype_from_name(std::string_view name) noexcept {
  for (const Row& row : kRows) {
    if (row.name == name) return row.dtype;
  }
  return std::nullopt;
}

std::optional<DType> dtype_from_user(std::string_view name) noexcept {
  std::string lower = ascii_lower(name);
  if (lower.starts_with("torch.")) lower.erase(0, 6);
  constexpr std::pair<std::string_view, DType> kNames[] = {
      {"f32", DType::F32},       {"fp32", DType::F32},    {"float32", DType::F32},
      {"float", DType::F32},     {"f16", DType::F16},     {"fp16", DType::F16},
      {"float16", DType::F16},   {"half", DType::F16},    {"bf16", DType::BF16},
      {"bfloat16", DType::BF16}, {"int8", DType::I8},     {"f64", DType::F64},
      {"fp64", DType::F64},      {"float64", DType::F64},
  };
  for (const auto& [known, dtype] : kNames) {
    if (known == lower) return dtype;
  }
  return std::nullopt;
}

uint16_t to_f16(float value) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);   // NaN
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);  // rounds to inf
  if (magnitude < 0x38800000u) {  // subnormal in half precision: let the adder round
    const float half = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(half) - 0x3F000000u));
  }
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

float from_f16(uint16_t bits) noexcept {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7FFFu;
  if (magnitude >= 0x7C00u) {
    return std::bit_cast<float>(sign | 0x7F800000u | ((magnitude & 0x3FFu) << 13));
  }
  if (magnitude < 0x0400u) {  // zero or subnormal: magnitude units of 2^-24
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
}

float from_f8e4m3(uint8_t bits) noexcept {
  const float sign = (bits & 0x80u) != 0 ? -1.0f : 1.0f;
  const uint32_t exponent = bits >> 3 & 15u, mantissa = bits & 7u;
  if ((bits & 0x7Fu) == 0x7Fu) return std::bit_cast<float>(0x7FC00000u);
  if (exponent == 0) return sign * static_cast<float>(mantissa) * 0x1p-9f;
  return sign * std::bit_cast<float>((exponent + 120u) << 23 | mantissa << 20);
}

}  // namespace quern
