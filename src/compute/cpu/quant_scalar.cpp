// The definition of a product of packed weights with rounded activations.
#include <algorithm>

#include "compute/cpu/quant_kernels.h"
#include "core/dtype.h"

namespace quern::cpu {
namespace {

#include "compute/cpu/quant_round.inl"

// weight = scale · level + offset, over the inputs from k on.
struct Affine {
  float scale, offset;
};
Affine affine_at(const PackedMatrix& m, const StripParts<const std::byte>& parts, int64_t lane,
                 int64_t k) noexcept {
  switch (m.scales) {
    case PackedScales::Symmetric: {
      const float scale = from_f16(parts.halves[k / m.group * kStripRows + lane]);
      return {scale, m.bits == 4 ? -8 * scale : 0.0f};
    }
    case PackedScales::Zeros: {
      const int64_t at = k / m.group * kStripRows + lane;
      const float scale = from_f16(parts.halves[at]);
      return {scale, -scale * static_cast<float>(parts.zeros[at])};
    }
    case PackedScales::Offsets: {
      const int64_t at = k / m.group * kStripRows + lane;
      return {from_f16(parts.halves[at]), from_f16(static_cast<uint16_t>(parts.zeros[at]))};
    }
    case PackedScales::Minima:
    case PackedScales::MinimaSixteens: {
      const int64_t share = m.scales == PackedScales::Minima ? k / kBlockInputs : k / 16;
      const uint16_t* d = parts.halves + k / kSuperInputs * 2 * kStripRows + lane;
      const uint8_t* small = parts.small + share * 2 * kStripRows + lane;
      return {from_f16(d[0]) * static_cast<float>(small[0]),
              -from_f16(d[kStripRows]) * static_cast<float>(small[kStripRows])};
    }
    case PackedScales::Sixteens: {
      const float d = from_f16(parts.halves[k / kSuperInputs * kStripRows + lane]);
      const auto small = static_cast<int8_t>(parts.small[k / 16 * kStripRows + lane]);
      return {d * static_cast<float>(small), 0};
    }
  }
  return {0, 0};
}

int level_at(const PackedMatrix& m, const StripParts<const std::byte>& parts, int64_t lane,
             int64_t block, int64_t k) noexcept {
  const int64_t byte = m.bits == 4 ? k % 16 : k;
  const uint32_t word = parts.levels[(block * m.bits + byte / 4) * kStripRows + lane];
  const auto bits = static_cast<uint8_t>(word >> (byte % 4 * 8));
  if (m.bits == 8) return static_cast<int8_t>(bits);
  return k < 16 ? bits & 15 : bits >> 4;
}

// x's level row with a strip's output, a sum for each row of levels.
float dot(const PackedMatrix& m, const StripParts<const std::byte>& parts, int64_t lane,
          const RoundedRows& x, int64_t level_row) noexcept {
  const std::byte* levels = x.levels + level_row * x.level_row_bytes();
  const float* scales = x.scales + level_row * x.scale_row_floats();
  const bool minima = m.scales == PackedScales::MinimaSixteens;
  const int64_t step = minima || m.scales == PackedScales::Sixteens ? 16 : kBlockInputs;
  const float* first_halves = x.first_halves() + level_row * (x.cols / kBlockInputs);
  float total = 0;
  for (int64_t block = 0; block < m.cols / kBlockInputs; ++block) {
    const float d = scales[2 * block];
    const float whole = scales[2 * block + 1] / sum_factor(x.form);
    const float half = first_halves[block] / sum_factor(x.form);
    for (int64_t begin = 0; begin < kBlockInputs; begin += step) {
      int32_t sum = 0;
      for (int64_t k = begin; k < begin + step; ++k) {
        const int64_t at = block * kBlockInputs + k;
        const int64_t swapped = k % 4 == 1 ? at + 1 : k % 4 == 2 ? at - 1 : at;
        const int32_t a = x.form == RoundedForm::Words
                              ? reinterpret_cast<const int16_t*>(levels)[swapped]
                              : reinterpret_cast<const int8_t*>(levels)[at];
        sum += a * level_at(m, parts, lane, block, k);
      }
      const Affine w = affine_at(m, parts, lane, block * kBlockInputs + begin);
      const float d_sum = !minima ? whole : begin == 0 ? half : whole - half;
      total += w.scale * d * static_cast<float>(sum) + w.offset * d_sum;
    }
  }
  return total;
}

void multiply(const MatmulPart& part, const RoundedRows& x, int64_t row_begin, int64_t row_end,
              int64_t strip_begin, int64_t strip_end) noexcept {
  const Weight& weight = *part.weight;
  const PackedMatrix& m = *weight.packed;
  const int64_t planes = x.form == RoundedForm::TwoBytes ? 2 : 1;
  for (int64_t at = strip_begin * kStripRows; at < strip_end * kStripRows; ++at) {
    const StripParts<const std::byte> parts(m, m.strip(at / kStripRows));
    const int64_t lane = at % kStripRows, i = at - weight.first_row;
    if (i < 0 || i >= weight.rows) continue;
    for (int64_t r = row_begin; r < row_end; ++r) {
      float value = 0;
      for (int64_t plane = 0; plane < planes; ++plane) {
        value += dot(m, parts, lane, x, r * planes + plane);
      }
      if (!part.bias.empty()) value += part.bias[static_cast<size_t>(i)];
      float* out = part.out.row(r) + i;
      *out = part.accumulate ? *out + value : value;
    }
  }
}

}  // namespace

const QuantKernels& quant_scalar() noexcept {
  static constexpr QuantKernels kTable = {
      "scalar", []() noexcept { return true; }, round_row, multiply, nullptr, nullptr, 0};
  return kTable;
}

}  // namespace quern::cpu
