#include "model/pack_weights.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "compute/cpu/cpu_backend.h"
#include "core/error.h"

namespace quern {
namespace {

uint32_t word_at(const std::byte* p) noexcept {
  uint32_t word;
  std::memcpy(&word, p, 4);
  return word;
}
uint16_t half_at(const std::byte* p) noexcept {
  uint16_t half;
  std::memcpy(&half, p, 2);
  return half;
}
uint8_t byte_at(const std::byte* p) noexcept { return std::to_integer<uint8_t>(*p); }

// The nibbles of a byte order that has 32 inputs one after another in `bytes`, their levels in the
// low nibbles of bytes >> shift, as words of a strip.
void nibble_words(const std::byte* bytes, int shift, uint32_t* words) noexcept {
  constexpr uint32_t kLow = 0x0F0F0F0Fu;
  for (int i = 0; i < 4; ++i) {
    const uint32_t first = word_at(bytes + 4 * i) >> shift & kLow;
    const uint32_t second = word_at(bytes + 16 + 4 * i) >> shift & kLow;
    words[i] = first | second << 4;
  }
}

// One output of a strip: what lane of it the row of blocks goes to.
struct Lane {
  const PackedMatrix& m;
  StripParts<std::byte> parts;
  int64_t lane;

  void words(int64_t block, const uint32_t* values) const noexcept {
    for (int i = 0; i < m.bits; ++i) {
      parts.levels[(block * m.bits + i) * kStripRows + lane] = values[i];
    }
  }
  bool half(int64_t at, uint16_t value) const noexcept {
    parts.halves[at * kStripRows + lane] = value;
    return (value & 0x7C00u) != 0x7C00u;  // finite
  }
  bool offset(int64_t at, uint16_t value) const noexcept {
    parts.zeros[at * kStripRows + lane] = static_cast<int16_t>(value);
    return (value & 0x7C00u) != 0x7C00u;
  }
  void small(int64_t at, uint8_t value) const noexcept {
    parts.small[at * kStripRows + lane] = value;
  }
};

// The eight scales and minima of Q4_K and Q5_K: six bits each, in 12 bytes.
void scales_of(const std::byte* p, uint8_t (&scale)[8], uint8_t (&min)[8]) noexcept {
  for (int j = 0; j < 4; ++j) {
    scale[j] = byte_at(p + j) & 63;
    min[j] = byte_at(p + j + 4) & 63;
    scale[j + 4] = static_cast<uint8_t>((byte_at(p + j + 8) & 15) | byte_at(p + j) >> 6 << 4);
    min[j + 4] = static_cast<uint8_t>(byte_at(p + j + 8) >> 4 | byte_at(p + j + 4) >> 6 << 4);
  }
}

// The 32 levels of a block that are signed bytes, as words of a strip.
void byte_words(const int8_t* levels, uint32_t* words) noexcept {
  std::memcpy(words, levels, kBlockInputs);
}

// Q5_0 and Q5_1: 16 bytes of nibbles, low ones first, and the fifth bits of all 32 together; less
// `middle`.
void five_bit_words(const std::byte* fifths, const std::byte* nibbles, int middle,
                    uint32_t* words) noexcept {
  const uint32_t fifth = word_at(fifths);
  int8_t levels[kBlockInputs];
  for (int i = 0; i < 16; ++i) {
    const int byte = byte_at(nibbles + i);
    levels[i] = static_cast<int8_t>(((byte & 15) | static_cast<int>(fifth >> i & 1) << 4) - middle);
    levels[i + 16] =
        static_cast<int8_t>((byte >> 4 | static_cast<int>(fifth >> (i + 16) & 1) << 4) - middle);
  }
  byte_words(levels, words);
}

// IQ4_NL and IQ4_XS: 16 bytes of nibbles that name levels.
void named_words(const std::byte* nibbles, uint32_t* words) noexcept {
  int8_t levels[kBlockInputs];
  for (size_t i = 0; i < 16; ++i) {
    levels[i] = kIq4Levels[byte_at(nibbles + i) & 15];
    levels[i + 16] = kIq4Levels[byte_at(nibbles + i) >> 4];
  }
  byte_words(levels, words);
}

// Q3_K: 32 weights of two bits at `shift` of `pairs`, and a third bit, number `bit` of each byte of
// `thirds`, that takes 4 away where it is not set.
void three_bit_words(const std::byte* pairs, int shift, const std::byte* thirds, int bit,
                     uint32_t* words) noexcept {
  int8_t levels[kBlockInputs];
  for (int i = 0; i < kBlockInputs; ++i) {
    const int third = byte_at(thirds + i) >> bit & 1;
    levels[i] = static_cast<int8_t>((byte_at(pairs + i) >> shift & 3) - (third ? 0 : 4));
  }
  byte_words(levels, words);
}

// A row of blocks into its lane. False where a scale is not finite.
bool pack_row(const Lane& lane, GgufType type, const std::byte* b) noexcept {
  const int64_t cols = lane.m.cols;
  bool finite = true;
  uint32_t words[8];
  switch (type) {
    case GgufType::Q4_0:
      for (int64_t block = 0; block < cols / 32; ++block, b += 18) {
        finite &= lane.half(block, half_at(b));
        std::memcpy(words, b + 2, 16);
        lane.words(block, words);
      }
      return finite;
    case GgufType::Q8_0:
      for (int64_t block = 0; block < cols / 32; ++block, b += 34) {
        finite &= lane.half(block, half_at(b));
        std::memcpy(words, b + 2, 32);
        lane.words(block, words);
      }
      return finite;
    case GgufType::Q4_1:
      for (int64_t block = 0; block < cols / 32; ++block, b += 20) {
        finite &= lane.half(block, half_at(b)) & lane.offset(block, half_at(b + 2));
        std::memcpy(words, b + 4, 16);
        lane.words(block, words);
      }
      return finite;
    case GgufType::Q5_0:
      for (int64_t block = 0; block < cols / 32; ++block, b += 22) {
        finite &= lane.half(block, half_at(b));
        five_bit_words(b + 2, b + 6, 16, words);
        lane.words(block, words);
      }
      return finite;
    case GgufType::Q5_1:
      for (int64_t block = 0; block < cols / 32; ++block, b += 24) {
        finite &= lane.half(block, half_at(b)) & lane.offset(block, half_at(b + 2));
        five_bit_words(b + 4, b + 8, 0, words);
        lane.words(block, words);
      }
      return finite;
    case GgufType::IQ4_NL:
      for (int64_t block = 0; block < cols / 32; ++block, b += 18) {
        finite &= lane.half(block, half_at(b));
        named_words(b + 2, words);
        lane.words(block, words);
      }
      return finite;
    case GgufType::IQ4_XS:
      for (int64_t super = 0; super < cols / 256; ++super, b += 136) {
        finite &= lane.half(super, half_at(b));
        for (int g = 0; g < 8; ++g) {
          const int four = byte_at(b + 4 + g / 2) >> (g % 2 * 4) & 15;
          const int scale = (four | (half_at(b + 2) >> (2 * g) & 3) << 4) - 32;
          lane.small(16 * super + 2 * g, static_cast<uint8_t>(scale));
          lane.small(16 * super + 2 * g + 1, static_cast<uint8_t>(scale));
          named_words(b + 8 + 16 * g, words);
          lane.words(8 * super + g, words);
        }
      }
      return finite;
    case GgufType::Q2_K:
      for (int64_t super = 0; super < cols / 256; ++super, b += 84) {
        finite &= lane.half(2 * super, half_at(b + 80)) & lane.half(2 * super + 1, half_at(b + 82));
        for (int g = 0; g < 16; ++g) {
          lane.small(2 * (16 * super + g), byte_at(b + g) & 15);
          lane.small(2 * (16 * super + g) + 1, byte_at(b + g) >> 4);
        }
        for (int g = 0; g < 8; ++g) {  // two bits each: to nibbles, 16 inputs on apart
          const std::byte* pairs = b + 16 + g / 4 * 32;
          for (int i = 0; i < 4; ++i) {
            const uint32_t first = word_at(pairs + 4 * i) >> (g % 4 * 2) & 0x03030303u;
            const uint32_t second = word_at(pairs + 16 + 4 * i) >> (g % 4 * 2) & 0x03030303u;
            words[i] = first | second << 4;
          }
          lane.words(8 * super + g, words);
        }
      }
      return finite;
    case GgufType::Q3_K:
      for (int64_t super = 0; super < cols / 256; ++super, b += 110) {
        finite &= lane.half(super, half_at(b + 108));
        for (int g = 0; g < 16; ++g) {
          const int low = byte_at(b + 96 + g % 8) >> (g / 8 * 4) & 15;
          const int high = byte_at(b + 104 + g % 4) >> (g / 4 * 2) & 3;
          lane.small(16 * super + g, static_cast<uint8_t>((low | high << 4) - 32));
        }
        for (int g = 0; g < 8; ++g) {
          three_bit_words(b + 32 + g / 4 * 32, g % 4 * 2, b, g, words);
          lane.words(8 * super + g, words);
        }
      }
      return finite;
    case GgufType::Q4_K:
    case GgufType::Q5_K: {
      const bool five = type == GgufType::Q5_K;
      for (int64_t super = 0; super < cols / 256; ++super, b += five ? 176 : 144) {
        finite &= lane.half(2 * super, half_at(b)) & lane.half(2 * super + 1, half_at(b + 2));
        uint8_t scale[8], min[8];
        scales_of(b + 4, scale, min);
        for (int g = 0; g < 8; ++g) {
          const int64_t block = 8 * super + g;
          lane.small(2 * block, scale[g]);
          lane.small(2 * block + 1, min[g]);
          const std::byte* nibbles = b + (five ? 48 : 16) + g / 2 * 32;
          const int shift = g % 2 * 4;
          if (!five) {
            nibble_words(nibbles, shift, words);
          } else {
            for (int i = 0; i < 8; ++i) {
              const uint32_t fifth = word_at(b + 16 + 4 * i) >> g & 0x01010101u;
              words[i] = (word_at(nibbles + 4 * i) >> shift & 0x0F0F0F0Fu) | fifth << 4;
            }
          }
          lane.words(block, words);
        }
      }
      return finite;
    }
    case GgufType::Q6_K:
      for (int64_t super = 0; super < cols / 256; ++super, b += 210) {
        finite &= lane.half(super, half_at(b + 208));
        for (int g = 0; g < 16; ++g) lane.small(16 * super + g, byte_at(b + 192 + g));
        for (int g = 0; g < 8; ++g) {
          const int half = g / 4, quarter = g % 4;
          const std::byte* low = b + half * 64 + quarter % 2 * 32;
          const std::byte* high = b + 128 + half * 32;
          for (int i = 0; i < 8; ++i) {
            const uint32_t four = word_at(low + 4 * i) >> (quarter / 2 * 4) & 0x0F0F0F0Fu;
            const uint32_t two = word_at(high + 4 * i) >> (2 * quarter) & 0x03030303u;
            // Less 32, byte by byte: levels are below 64, so that bit 7 is free to borrow from.
            const uint32_t level = four | two << 4;
            words[i] = ((level | 0x80808080u) - 0x20202020u) ^ 0x80808080u;
          }
          lane.words(8 * super + g, words);
        }
      }
      return finite;
    default:
      return false;
  }
}

template <class Fill>
void for_strips(PackedMatrix& matrix, ThreadPool* pool, const Fill& fill) {
  matrix.memory = allocate_host(DType::U8, {matrix.bytes()});
  const int64_t strips = matrix.strips();
  constexpr int64_t kTogether = 16;  // so that lines of the source are read by one thread
  if (pool == nullptr) {
    for (int64_t s = 0; s < strips; s += kTogether) fill(s, std::min(s + kTogether, strips));
  } else {
    pool->parallel_for(strips, kTogether,
                       [&](int64_t begin, int64_t end, int) { fill(begin, end); });
  }
}

}  // namespace

bool packs(GgufType type, int64_t cols) noexcept {
  switch (type) {
    case GgufType::Q4_0:
    case GgufType::Q4_1:
    case GgufType::Q5_0:
    case GgufType::Q5_1:
    case GgufType::Q8_0:
    case GgufType::IQ4_NL:
      return cols % kBlockInputs == 0;
    case GgufType::Q2_K:
    case GgufType::Q3_K:
    case GgufType::Q4_K:
    case GgufType::Q5_K:
    case GgufType::Q6_K:
    case GgufType::IQ4_XS:
      return cols % kSuperInputs == 0;
    default:
      return false;
  }
}

PackedMatrix shape_of_blocks(const GgufMatrix& source) {
  PackedMatrix m;
  m.rows = source.rows;
  m.cols = source.cols;
  m.bits = 8;
  m.activation_bits = activation_bits(m.cols);
  switch (source.type) {
    case GgufType::Q4_0:
      m.bits = 4;
      break;
    case GgufType::Q4_1:
      m.bits = 4;
      m.scales = PackedScales::Offsets;
      break;
    case GgufType::Q5_1:
      m.scales = PackedScales::Offsets;
      break;
    case GgufType::Q2_K:
      m.bits = 4;
      m.scales = PackedScales::MinimaSixteens;
      break;
    case GgufType::Q4_K:
      m.bits = 4;
      m.scales = PackedScales::Minima;
      break;
    case GgufType::Q5_K:
      m.scales = PackedScales::Minima;
      break;
    case GgufType::IQ4_XS:
      m.activation_bits = 16;  // its levels are too large for sums of Sixteens with bytes
      m.scales = PackedScales::Sixteens;
      break;
    case GgufType::Q3_K:
    case GgufType::Q6_K:
      m.scales = PackedScales::Sixteens;
      break;
    default:
      break;
  }
  return m;
}

PackedMatrix pack_blocks(const GgufMatrix& source, ThreadPool* pool) {
  PackedMatrix m = shape_of_blocks(source);
  const GgufBlock block = *gguf_block(static_cast<uint32_t>(source.type));
  const int64_t row_bytes = m.cols / block.weights * block.bytes;
  for_strips(m, pool, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      for (int64_t lane = 0; lane < std::min(kStripRows, m.rows - s * kStripRows); ++lane) {
        const int64_t row = s * kStripRows + lane;
        const int64_t theirs =
            source.row_order.empty() ? row : source.row_order[static_cast<size_t>(row)];
        const Lane to = {m, StripParts<std::byte>(m, m.strip(s)), lane};
        if (!pack_row(to, source.type, source.blocks + theirs * row_bytes)) {
          throw_bad_input(
              fmt::format("{} has a scale in row {} that is not finite", source.where, theirs),
              "the file is damaged");
        }
      }
    }
  });
  return m;
}

std::optional<PackedMatrix> shape_of_words(const GptqMatrix& source, int64_t in) {
  std::optional<PackedMatrix> m = packed_shape(source, in);
  // Scattered groups of small matrices stay in float, where speed does not count: rounding even to
  // 16 bits misses the golden of act-order by a quarter of its tolerance.
  if (m && !m->order.empty() && m->activation_bits == 16) return std::nullopt;
  return m;
}

PackedMatrix pack_words(const GptqMatrix& source, PackedMatrix shape, ThreadPool* pool) {
  for_strips(shape, pool,
             [&](int64_t begin, int64_t end) { pack_gptq(shape, source, begin, end); });
  return shape;
}

void forget_mapped(const void* data, uint64_t bytes) noexcept {
  constexpr uintptr_t kPage = 4096;
  const auto begin = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const auto end = (reinterpret_cast<uintptr_t>(data) + bytes) / kPage * kPage;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace quern
