// Element types of tensors, and the scalar conversions between them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace quern {

enum class DType : uint8_t {
  F64,
  F32,
  F16,
  BF16,
  I64,
  I32,
  I16,
  I8,
  U64,
  U32,
  U16,
  U8,
  Bool,
  F8E4M3
};

size_t size_bytes(DType dtype) noexcept;

// The names of safetensors: "F32", "BF16", "BOOL", ...
std::string_view name(DType dtype) noexcept;
std::optional<DType> dtype_from_name(std::string_view name) noexcept;

// The user's names: "fp32", "float16", "bf16", "int8", ... (any case), or nothing.
std::optional<DType> dtype_from_user(std::string_view name) noexcept;

// bfloat16: the upper half of a float. Rounds to nearest, ties to even; NaN stays NaN.
inline uint16_t to_bf16(float value) noexcept {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  bits += 0x7FFFu + ((bits >> 16) & 1u);
  return static_cast<uint16_t>(bits >> 16);
}
inline float from_bf16(uint16_t bits) noexcept {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// IEEE half precision. Rounds to nearest, ties to even; overflows to infinity.
uint16_t to_f16(float value) noexcept;
float from_f16(uint16_t bits) noexcept;

// Eight bits with four of exponent, as OCP defines them (OFP8 E4M3): up to 448, NaN, no infinity.
float from_f8e4m3(uint8_t bits) noexcept;

}  // namespace quern
