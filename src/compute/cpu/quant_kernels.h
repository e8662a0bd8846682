// Products of packed weights (compute/packed.h) by integers: activations are rounded to levels of a
// scale for each 32 inputs, products of levels are added up exactly within these 32, their scaled
// sums in float. One row's sums never depend on the rows beside it.
//
// With x ≈ d · a, w = s · (b - z) over a block of 32: Σ x w ≈ Σ over blocks of
//   (s d) · Σ a b + (-s z) · (d Σ a)
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "compute/backend.h"
#include "compute/packed.h"
#include "core/isa.h"

namespace quern::cpu {

// How activations are rounded; follows from a matrix's bits and activation_bits.
enum class RoundedForm : uint8_t {
  Bytes,     // a = round(x / d), |a| <= 127                      int8 [rows, cols]
  TwoBytes,  // 256 a_1 + a_0 = round(x / d), two rows for one: first a_1 with 256 d, then a_0
  Pairs,     // as Bytes; of two neighbours the positive ones make 128 at most, the negative ones
             // -128, so that 16 bits hold their products with 0 to 255     int8 [rows, cols]
  Words,     // a = round(x / d), |a| <= 32767, the inner two of four inputs swapped   int16 [rows,
             // cols]
};
RoundedForm rounded_form(const PackedMatrix& matrix) noexcept;

// What d · Σ a is multiplied by where it is kept: kernels take levels from 0 up, and this takes the
// middle of the weights' levels from the products.
constexpr float sum_factor(RoundedForm form) noexcept {
  return form == RoundedForm::Words ? 1.0f : form == RoundedForm::Pairs ? -128.0f : -8.0f;
}

// Rounded rows: `levels` as the form says; scales [rows of levels][cols / 32][2]: d, and
// sum_factor(form) · d · Σ a; then the same sum of each block's first 16 alone, [rows of levels][cols
// / 32], for MinimaSixteens. Where an x of the block is not finite, d is not a number.
struct RoundedRows {
  RoundedForm form = RoundedForm::Bytes;
  int64_t rows = 0;  // of x
  int64_t cols = 0;
  std::byte* levels = nullptr;
  float* scales = nullptr;

  int64_t level_rows() const noexcept { return rows * (form == RoundedForm::TwoBytes ? 2 : 1); }
  int64_t level_row_bytes() const noexcept { return cols * (form == RoundedForm::Words ? 2 : 1); }
  int64_t scale_row_floats() const noexcept { return cols / kBlockInputs * 2; }
  int64_t level_bytes() const noexcept { return level_rows() * level_row_bytes(); }
  float* first_halves() const noexcept { return scales + level_rows() * scale_row_floats(); }
  int64_t bytes() const noexcept {
    return level_bytes() + level_rows() * (scale_row_floats() + cols / kBlockInputs) * 4;
  }
};

struct QuantKernels {
  std::string_view name;
  bool (*supported)() noexcept;

  // Rounds row `row` of x: [cols], in the strips' order.
  void (*round_row)(const RoundedRows& to, int64_t row, const float* x) noexcept;

  // out[r, i] (+)= x[r] · w[i] + bias[i] for the rows [row_begin, row_end) of x and those outputs
  // of the strips [strip_begin, strip_end) that part.weight has.
  void (*multiply)(const MatmulPart& part, const RoundedRows& x, int64_t row_begin, int64_t row_end,
                   int64_t strip_begin, int64_t strip_end) noexcept;

  // Products of bytes without memory traffic, `rounds` times dot_ops_per_round operations, as rows of
  // the form Bytes take them, and as those of Pairs do. For measuring the peak; null where there are
  // no such instructions.
  float (*dot_loop)(int64_t rounds) noexcept;
  float (*pair_loop)(int64_t rounds) noexcept;
  int64_t dot_ops_per_round;
};

// Best first; the last is the definition. For tests and benchmarks: those of the CPU are the ones
// that are supported().
std::span<const QuantKernels* const> quant_variants() noexcept;

// The best one that the machine has within an instruction set.
const QuantKernels& quant_kernels(Isa isa) noexcept;

const QuantKernels& quant_scalar() noexcept;
const QuantKernels& quant_avx2() noexcept;
const QuantKernels& quant_vnni() noexcept;

}  // namespace quern::cpu
