#include "compute/packed.h"

#include <algorithm>

#include "core/dtype.h"

namespace quern {
namespace {

// Four nibbles in 16 bits, each to a byte of its own.
uint32_t spread(uint32_t nibbles) noexcept {
  const uint32_t pairs = (nibbles | nibbles << 8) & 0x00FF00FFu;
  return (pairs | pairs << 4) & 0x0F0F0F0Fu;
}

int gptq_zero(const GptqMatrix& m, int64_t group, int64_t row) noexcept {
  const int64_t per = 32 / m.bits;
  const uint32_t word = m.qzeros[group * (m.out * m.bits / 32) + row / per];
  const uint32_t mask = (1u << m.bits) - 1u;
  return static_cast<int>(word >> (static_cast<int>(row % per) * m.bits) & mask) + m.zero_shift;
}

uint32_t gptq_level(const GptqMatrix& m, int64_t k, int64_t row) noexcept {
  const int64_t per = 32 / m.bits;
  const uint32_t word = m.qweight[k / per * m.out + row];
  return word >> (static_cast<int>(k % per) * m.bits) & ((1u << m.bits) - 1u);
}

// The words of 32 inputs of an output: bits of them.
void gptq_words(const PackedMatrix& p, const GptqMatrix& m, int64_t block, int64_t row,
                uint32_t* words) noexcept {
  const int64_t first = block * kBlockInputs;
  if (!p.order.empty()) {
    const int32_t* order = p.order.data() + first;
    for (int i = 0; i < p.bits; ++i) {
      words[i] = 0;
      for (int c = 0; c < 4; ++c) {
        uint32_t byte = gptq_level(m, order[4 * i + c], row);
        if (p.bits == 4) {
          byte |= gptq_level(m, order[16 + 4 * i + c], row) << 4;
        } else {
          byte ^= 0x80;  // less 128
        }
        words[i] |= byte << (8 * c);
      }
    }
    return;
  }
  const uint32_t* from = m.qweight + first * p.bits / 32 * m.out + row;
  if (p.bits == 8) {
    for (int i = 0; i < 8; ++i) words[i] = from[i * m.out] ^ 0x80808080u;
    return;
  }
  for (int i = 0; i < 4; ++i) {
    const uint32_t low = from[i / 2 * m.out] >> (i % 2 * 16) & 0xFFFFu;
    const uint32_t high = from[(2 + i / 2) * m.out] >> (i % 2 * 16) & 0xFFFFu;
    words[i] = spread(low) | spread(high) << 4;
  }
}

}  // namespace

int64_t PackedMatrix::scale_bytes() const noexcept {
  switch (scales) {
    case PackedScales::Symmetric:
      return cols / group * kStripRows * 2;
    case PackedScales::Zeros:
    case PackedScales::Offsets:
      return cols / group * kStripRows * 4;
    case PackedScales::Minima:
      return cols / kSuperInputs * 2 * kStripRows * 2 + cols / kBlockInputs * 2 * kStripRows;
    case PackedScales::Sixteens:
      return cols / kSuperInputs * kStripRows * 2 + cols / 16 * kStripRows;
    case PackedScales::MinimaSixteens:
      return cols / kSuperInputs * 2 * kStripRows * 2 + cols / 16 * 2 * kStripRows;
  }
  return 0;
}

int activation_bits(int64_t cols) noexcept {
  constexpr int64_t kManyInputs = 2048;
  return cols < kManyInputs ? 16 : 8;
}

void decode_packed(std::span<float> out, const PackedMatrix& m, int64_t row) noexcept {
  const StripParts<const std::byte> parts(m, m.strip(row / kStripRows));
  const int64_t lane = row % kStripRows;
  for (int64_t k = 0; k < m.cols; ++k) {
    const int64_t block = k / kBlockInputs, within = k % kBlockInputs;
    const int64_t byte = m.bits == 4 ? within % 16 : within;
    const uint32_t word = parts.levels[(block * m.bits + byte / 4) * kStripRows + lane];
    const uint32_t bits = word >> (byte % 4 * 8) & 0xFF;
    const int level = m.bits == 8 ? static_cast<int8_t>(bits)
                                  : static_cast<int>(within < 16 ? bits & 15 : bits >> 4);
    float value = 0;
    switch (m.scales) {
      case PackedScales::Symmetric: {
        const float scale = from_f16(parts.halves[k / m.group * kStripRows + lane]);
        value = scale * static_cast<float>(m.bits == 4 ? level - 8 : level);
        break;
      }
      case PackedScales::Zeros: {
        const int64_t at = k / m.group * kStripRows + lane;
        value = from_f16(parts.halves[at]) * static_cast<float>(level - parts.zeros[at]);
        break;
      }
      case PackedScales::Offsets: {
        const int64_t at = k / m.group * kStripRows + lane;
        value = from_f16(parts.halves[at]) * static_cast<float>(level) +
                from_f16(static_cast<uint16_t>(parts.zeros[at]));
        break;
      }
      case PackedScales::Minima:
      case PackedScales::MinimaSixteens: {
        const int64_t share = m.scales == PackedScales::Minima ? block : k / 16;
        const uint16_t* d = parts.halves + k / kSuperInputs * 2 * kStripRows + lane;
        const uint8_t* small = parts.small + share * 2 * kStripRows + lane;
        value = from_f16(d[0]) * static_cast<float>(small[0]) * static_cast<float>(level) -
                from_f16(d[kStripRows]) * static_cast<float>(small[kStripRows]);
        break;
      }
      case PackedScales::Sixteens: {
        const float d = from_f16(parts.halves[k / kSuperInputs * kStripRows + lane]);
        const auto scale = static_cast<int8_t>(parts.small[k / 16 * kStripRows + lane]);
        value = d * static_cast<float>(scale) * static_cast<float>(level);
        break;
      }
    }
    out[static_cast<size_t>(m.order.empty() ? k : m.order[static_cast<size_t>(k)])] = value;
  }
}

std::optional<PackedMatrix> packed_shape(const GptqMatrix& source, int64_t in) {
  if (in == 0 || in % kBlockInputs != 0) return std::nullopt;
  const std::span<const int32_t> group_of(source.g_idx, static_cast<size_t>(in));
  const int64_t groups = *std::max_element(group_of.begin(), group_of.end()) + 1;
  const int64_t group = in / groups;
  if (in % groups != 0 || group % kBlockInputs != 0) return std::nullopt;
  std::vector<int64_t> counts(static_cast<size_t>(groups));
  bool in_order = true;
  for (int64_t k = 0; k < in; ++k) {
    const int32_t g = source.g_idx[k];
    ++counts[static_cast<size_t>(g)];
    in_order = in_order && g == k / group;
  }
  if (std::ranges::any_of(counts, [&](int64_t count) { return count != group; })) {
    return std::nullopt;
  }
  PackedMatrix m;
  m.bits = source.bits;
  m.rows = source.out;
  m.cols = in;
  m.group = group;
  m.activation_bits = activation_bits(in);
  if (!in_order) {
    m.order.resize(static_cast<size_t>(in));
    std::vector<int64_t> next(static_cast<size_t>(groups));
    for (int64_t k = 0; k < in; ++k) {
      const int64_t g = source.g_idx[k];
      m.order[static_cast<size_t>(g * group + next[static_cast<size_t>(g)]++)] =
          static_cast<int32_t>(k);
    }
  }
  const int middle = 1 << (m.bits - 1);
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t row = 0; row < m.rows; ++row) {
      if (gptq_zero(source, g, row) != middle) m.scales = PackedScales::Zeros;
    }
  }
  return m;
}

void pack_gptq(PackedMatrix& m, const GptqMatrix& source, int64_t begin, int64_t end) noexcept {
  const int64_t blocks = m.cols / kBlockInputs, groups = m.cols / m.group;
  // Block by block over all the strips, so that whole lines of the source are read.
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t s = begin; s < end; ++s) {
      const StripParts<std::byte> parts(m, m.strip(s));
      const int64_t count = std::min(kStripRows, m.rows - s * kStripRows);
      for (int64_t lane = 0; lane < count; ++lane) {
        uint32_t words[8];
        gptq_words(m, source, block, s * kStripRows + lane, words);
        for (int i = 0; i < m.bits; ++i) {
          parts.levels[(block * m.bits + i) * kStripRows + lane] = words[i];
        }
      }
    }
  }
  for (int64_t s = begin; s < end; ++s) {
    const StripParts<std::byte> parts(m, m.strip(s));
    const int64_t count = std::min(kStripRows, m.rows - s * kStripRows);
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t lane = 0; lane < count; ++lane) {
        const int64_t row = s * kStripRows + lane;
        parts.halves[g * kStripRows + lane] = source.scales[g * source.out + row];
        if (m.scales == PackedScales::Zeros) {
          const int zero = gptq_zero(source, g, row) - (m.bits == 8 ? 128 : 0);
          parts.zeros[g * kStripRows + lane] = static_cast<int16_t>(zero);
        }
      }
    }
  }
}

}  // namespace quern
