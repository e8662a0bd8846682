// The number formats of GGUF's tensors: blocks of weights that share scales.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace quern {

// By the ids of the file format. Those that Quern does not read are known by name only.
enum class GgufType : uint32_t {
  F32 = 0,
  F16 = 1,
  Q4_0 = 2,
  Q4_1 = 3,
  Q5_0 = 6,
  Q5_1 = 7,
  Q8_0 = 8,
  Q2_K = 10,
  Q3_K = 11,
  Q4_K = 12,
  Q5_K = 13,
  Q6_K = 14,
  IQ4_NL = 20,
  IQ4_XS = 23,
  BF16 = 30,
};

// The levels that nibbles of IQ4_NL and IQ4_XS name.
inline constexpr std::array<int8_t, 16> kIq4Levels = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                      1,    13,   25,  38,  53,  69,  89,  113};

struct GgufBlock {
  GgufType type;
  std::string_view name;
  int64_t weights;  // in a block
  int64_t bytes;    // of a block
};

// Nothing for a type that is not read.
std::optional<GgufBlock> gguf_block(uint32_t type) noexcept;
std::optional<GgufBlock> gguf_block_named(std::string_view name) noexcept;
// The name of any type that the format has or had, for messages; empty for others.
std::string_view gguf_type_name(uint32_t type) noexcept;

// out.size() weights out of whole blocks.
void dequantize_blocks(GgufType type, const std::byte* blocks, std::span<float> out) noexcept;

// Weights (a multiple of the block's) to blocks of F32, F16, BF16, Q8_0, Q4_0 or Q4_K, each value to
// the nearest level; of Q4_K's scales and minima those that lose least.
void quantize_blocks(GgufType type, std::span<const float> weights, std::byte* blocks) noexcept;

}  // namespace quern
