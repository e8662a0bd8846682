// Matrices of four and eight bits in the one form that the kernels read, whatever file they come
// from: GPTQ's words or GGUF's blocks. Made once at load, without loss.
//
// A strip holds kStripRows outputs side by side, so that a vector register takes four inputs of
// eight or sixteen outputs in one load and no sum ever crosses its lanes, and one row of x reads a
// strip from end to end, as prefetchers like it. A strip's bytes, one after another:
//
//   levels  for each 32 inputs
//             4 bits: [4][32 rows][4] bytes; low nibbles are the inputs 4 i + c, high ones
//                     16 + 4 i + c
//             8 bits: [8][32 rows][4] bytes, signed
//   scales  as PackedScales says, each of 32 rows
//
// Outputs beyond the last have scales of zero. Levels of four bits are 0 to 15.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "compute/tensor.h"

namespace quern {

enum class PackedScales : uint8_t {
  // weight = scale · level, or scale · (level - 8) of four bits.    float16 [cols / group][32]
  Symmetric,
  // weight = scale · (level - zero).      float16 [cols / group][32], then int16 zeros of that
  // shape
  Zeros,
  // weight = scale · level + offset: GGUF's Q4_1, Q5_1. Levels of eight bits are 0 to 31.
  //   float16 scales [cols / group][32], then float16 offsets of that shape
  Offsets,
  // weight = d · scale · level - d_min · min: GGUF's Q4_K, Q5_K. Levels of eight bits are 0 to 31.
  //   float16 d and d_min [cols / 256][2][32], uint8 scale and min [cols / 32][2][32]
  Minima,
  // weight = d · scale · level, a scale for 16 inputs: GGUF's Q3_K, Q6_K, IQ4_XS. Levels are -32 to
  // 31; with activations of 16 bits, -128 to 127.
  //   float16 d [cols / 256][32], int8 scale [cols / 16][32]
  Sixteens,
  // weight = d · scale · level - d_min · min, both for 16 inputs: GGUF's Q2_K, of four bits.
  //   float16 d and d_min [cols / 256][2][32], uint8 scale and min [cols / 16][2][32]
  MinimaSixteens,
};

constexpr int64_t kStripRows = 32;
constexpr int64_t kBlockInputs = 32;   // levels come in blocks of so many inputs
constexpr int64_t kSuperInputs = 256;  // Minima and Sixteens: inputs that share d

struct PackedMatrix {
  int bits = 4;  // 4 or 8
  PackedScales scales = PackedScales::Symmetric;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t group = 32;          // Symmetric, Zeros: inputs that share a scale, a multiple of 32
  int activation_bits = 8;     // that activations are rounded to before the product, 8 or 16
  Tensor memory;               // [strips, strip_bytes()]
  std::vector<int32_t> order;  // [cols], or empty: input k of the strips is input order[k]

  int64_t strips() const noexcept { return (rows + kStripRows - 1) / kStripRows; }
  int64_t block_bytes() const noexcept { return kStripRows * kBlockInputs * bits / 8; }
  int64_t level_bytes() const noexcept { return cols / kBlockInputs * block_bytes(); }
  int64_t scale_bytes() const noexcept;
  int64_t strip_bytes() const noexcept { return (level_bytes() + scale_bytes() + 63) / 64 * 64; }
  int64_t bytes() const noexcept { return strips() * strip_bytes(); }
  const std::byte* strip(int64_t s) const noexcept { return memory.data() + s * strip_bytes(); }
  std::byte* strip(int64_t s) noexcept { return memory.data() + s * strip_bytes(); }
};

// Which bits activations are rounded to for a matrix of so many inputs: sums of few terms average
// little of the rounding out, and small models have time to spare.
int activation_bits(int64_t cols) noexcept;

// Where the parts of a strip begin.
template <class Byte>
struct StripParts {
  using Word = std::conditional_t<std::is_const_v<Byte>, const uint32_t, uint32_t>;
  using Half = std::conditional_t<std::is_const_v<Byte>, const uint16_t, uint16_t>;
  using Zero = std::conditional_t<std::is_const_v<Byte>, const int16_t, int16_t>;
  using Small = std::conditional_t<std::is_const_v<Byte>, const uint8_t, uint8_t>;

  Word* levels;  // [cols / 32][bits][32 rows], each four bytes
  Half* halves;  // float16 scales
  Zero* zeros;   // Zeros; Offsets: float16, as the bits say
  Small* small;  // Minima, Sixteens, MinimaSixteens

  StripParts(const PackedMatrix& m, Byte* strip) noexcept {
    Byte* scales = strip + m.level_bytes();
    levels = reinterpret_cast<Word*>(strip);
    halves = reinterpret_cast<Half*>(scales);
    zeros = reinterpret_cast<Zero*>(scales + m.cols / m.group * kStripRows * 2);
    const bool minima =
        m.scales == PackedScales::Minima || m.scales == PackedScales::MinimaSixteens;
    const int64_t supers = minima ? 2 : 1;
    small = reinterpret_cast<Small*>(scales + m.cols / kSuperInputs * supers * kStripRows * 2);
  }
};

// The definition of what is stored: out[k] = the weight of output `row` and input k, k in the
// model's own order.                                                                   out: [cols]
void decode_packed(std::span<float> out, const PackedMatrix& matrix, int64_t row) noexcept;

// GPTQ's words in this form: a shape without memory. Nothing where they have none: inputs that are
// no multiple of 32, groups of another size than a multiple of 32.
std::optional<PackedMatrix> packed_shape(const GptqMatrix& source, int64_t in);
// Strips [begin, end) of such a matrix. Several threads may each fill their own.
void pack_gptq(PackedMatrix& matrix, const GptqMatrix& source, int64_t begin, int64_t end) noexcept;

}  // namespace quern
