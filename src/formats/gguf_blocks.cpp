#include "formats/gguf_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/dtype.h"

namespace quern {
namespace {

constexpr GgufBlock kBlocks[] = {
    {GgufType::F32, "F32", 1, 4},           {GgufType::F16, "F16", 1, 2},
    {GgufType::BF16, "BF16", 1, 2},         {GgufType::Q4_0, "Q4_0", 32, 18},
    {GgufType::Q4_1, "Q4_1", 32, 20},       {GgufType::Q5_0, "Q5_0", 32, 22},
    {GgufType::Q5_1, "Q5_1", 32, 24},       {GgufType::Q8_0, "Q8_0", 32, 34},
    {GgufType::Q2_K, "Q2_K", 256, 84},      {GgufType::Q3_K, "Q3_K", 256, 110},
    {GgufType::Q4_K, "Q4_K", 256, 144},     {GgufType::Q5_K, "Q5_K", 256, 176},
    {GgufType::Q6_K, "Q6_K", 256, 210},     {GgufType::IQ4_NL, "IQ4_NL", 32, 18},
    {GgufType::IQ4_XS, "IQ4_XS", 256, 136},
};

struct OtherType {
  uint32_t id;
  std::string_view name;
};
constexpr OtherType kOthers[] = {
    {4, "Q4_2 (removed)"},
    {5, "Q4_3 (removed)"},
    {9, "Q8_1"},
    {15, "Q8_K"},
    {16, "IQ2_XXS"},
    {17, "IQ2_XS"},
    {18, "IQ3_XXS"},
    {19, "IQ1_S"},
    {21, "IQ3_S"},
    {22, "IQ2_S"},
    {24, "I8"},
    {25, "I16"},
    {26, "I32"},
    {27, "I64"},
    {28, "F64"},
    {29, "IQ1_M"},
    {31, "Q4_0_4_4 (removed)"},
    {32, "Q4_0_4_8 (removed)"},
    {33, "Q4_0_8_8 (removed)"},
    {34, "TQ1_0"},
    {35, "TQ2_0"},
    {39, "MXFP4"},
};

uint8_t u8(const std::byte* p) { return std::to_integer<uint8_t>(*p); }
uint16_t u16(const std::byte* p) { return static_cast<uint16_t>(u8(p) | u8(p + 1) << 8); }
uint32_t u32(const std::byte* p) { return u16(p) | static_cast<uint32_t>(u16(p + 2)) << 16; }
float f16(const std::byte* p) { return from_f16(u16(p)); }
int low(const std::byte* p) { return u8(p) & 15; }
int high(const std::byte* p) { return u8(p) >> 4; }
float iq4_level(int nibble) { return kIq4Levels[static_cast<size_t>(nibble)]; }

// Q4_K and Q5_K: eight scales and eight minima of six bits each, in 12 bytes.
struct ScaleMin {
  float scale, min;
};
ScaleMin scale_min(const std::byte* p, int j) {
  if (j < 4) return {static_cast<float>(u8(p + j) & 63), static_cast<float>(u8(p + j + 4) & 63)};
  const int scale = (u8(p + j + 4) & 15) | (u8(p + j - 4) >> 6) << 4;
  const int min = u8(p + j + 4) >> 4 | (u8(p + j) >> 6) << 4;
  return {static_cast<float>(scale), static_cast<float>(min)};
}

// One block each. Nibbles: the low ones are the first half of the weights, the high ones the
// second.
void q4_0(const std::byte* b, float* out) {
  const float d = f16(b);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(low(b + 2 + i) - 8);
    out[i + 16] = d * static_cast<float>(high(b + 2 + i) - 8);
  }
}
void q4_1(const std::byte* b, float* out) {
  const float d = f16(b), m = f16(b + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(low(b + 4 + i)) + m;
    out[i + 16] = d * static_cast<float>(high(b + 4 + i)) + m;
  }
}
// The fifth bits of all 32 weights stand together.
void q5(const std::byte* b, const std::byte* bits, const std::byte* nibbles, float m, int offset,
        float* out) {
  const float d = f16(b);
  const uint32_t fifth = u32(bits);
  for (int i = 0; i < 16; ++i) {
    const int first = low(nibbles + i) | static_cast<int>(fifth >> i & 1) << 4;
    const int second = high(nibbles + i) | static_cast<int>(fifth >> (i + 16) & 1) << 4;
    out[i] = d * static_cast<float>(first - offset) + m;
    out[i + 16] = d * static_cast<float>(second - offset) + m;
  }
}
void q5_0(const std::byte* b, float* out) { q5(b, b + 2, b + 6, 0, 16, out); }
void q5_1(const std::byte* b, float* out) { q5(b, b + 4, b + 8, f16(b + 2), 0, out); }
void q8_0(const std::byte* b, float* out) {
  const float d = f16(b);
  for (int i = 0; i < 32; ++i) {
    out[i] = d * static_cast<float>(static_cast<int8_t>(u8(b + 2 + i)));
  }
}
// 16 groups of 16: scale and minimum of four bits each. Two-bit weights: of 32 bytes the lowest
// bits first, then the next.
void q2_k(const std::byte* b, float* out) {
  const float d = f16(b + 80), dmin = f16(b + 82);
  for (int i = 0; i < 256; ++i) {
    const int group = i / 16, half = i / 128, shift = i / 32 % 4 * 2;
    const int q = u8(b + 16 + half * 32 + i % 32) >> shift & 3;
    out[i] = d * static_cast<float>(low(b + group)) * static_cast<float>(q) -
             dmin * static_cast<float>(high(b + group));
  }
}
// A third bit, in a mask of its own, that takes 4 away where it is not set; scales of six bits less
// 32: low four of the first eight, then of the second; high two of all 16 in four bytes.
void q3_k(const std::byte* b, float* out) {
  const std::byte *mask = b, *qs = b + 32, *scales = b + 96;
  const float d = f16(b + 108);
  for (int i = 0; i < 256; ++i) {
    const int group = i / 16, half = i / 128, shift = i / 32 % 4 * 2;
    const int four = group < 8 ? low(scales + group) : high(scales + group - 8);
    const int two = u8(scales + 8 + group % 4) >> (group / 4 * 2) & 3;
    const int scale = (four | two << 4) - 32;
    const int q = u8(qs + half * 32 + i % 32) >> shift & 3;
    const int third = u8(mask + i % 32) >> (i / 32) & 1;
    out[i] = d * static_cast<float>(scale) * static_cast<float>(q - (third ? 0 : 4));
  }
}
void q4_k(const std::byte* b, float* out) {
  const float d = f16(b), dmin = f16(b + 2);
  for (int group = 0; group < 8; ++group) {
    const auto [scale, min] = scale_min(b + 4, group);
    const std::byte* qs = b + 16 + group / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int q = group % 2 == 0 ? low(qs + i) : high(qs + i);
      out[group * 32 + i] = d * scale * static_cast<float>(q) - dmin * min;
    }
  }
}
void q5_k(const std::byte* b, float* out) {
  const float d = f16(b), dmin = f16(b + 2);
  for (int group = 0; group < 8; ++group) {
    const auto [scale, min] = scale_min(b + 4, group);
    const std::byte *fifth = b + 16, *qs = b + 48 + group / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int four = group % 2 == 0 ? low(qs + i) : high(qs + i);
      const int q = four | (u8(fifth + i) >> group & 1) << 4;
      out[group * 32 + i] = d * scale * static_cast<float>(q) - dmin * min;
    }
  }
}
// Halves of 128: 64 bytes of low nibbles, then of high ones; two more bits from 32 bytes.
void q6_k(const std::byte* b, float* out) {
  const std::byte *ql = b, *qh = b + 128, *scales = b + 192;
  const float d = f16(b + 208);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, within = i % 128;
    const std::byte* nibble = ql + half * 64 + within % 64;
    const int four = within < 64 ? low(nibble) : high(nibble);
    const int two = u8(qh + half * 32 + within % 32) >> (within / 32 * 2) & 3;
    const auto scale = static_cast<float>(static_cast<int8_t>(u8(scales + i / 16)));
    out[i] = d * scale * static_cast<float>((four | two << 4) - 32);
  }
}
void iq4_nl(const std::byte* b, float* out) {
  const float d = f16(b);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * iq4_level(low(b + 2 + i));
    out[i + 16] = d * iq4_level(high(b + 2 + i));
  }
}
void iq4_xs(const std::byte* b, float* out) {
  const float d = f16(b);
  const uint16_t scales_high = u16(b + 2);
  for (int group = 0; group < 8; ++group) {
    const std::byte* scales_low = b + 4 + group / 2;
    const int four = group % 2 == 0 ? low(scales_low) : high(scales_low);
    const int scale = (four | (scales_high >> (2 * group) & 3) << 4) - 32;
    const float dl = d * static_cast<float>(scale);
    const std::byte* qs = b + 8 + group * 16;
    for (int i = 0; i < 16; ++i) {
      out[group * 32 + i] = dl * iq4_level(low(qs + i));
      out[group * 32 + i + 16] = dl * iq4_level(high(qs + i));
    }
  }
}

using BlockFn = void (*)(const std::byte*, float*);
BlockFn block_function(GgufType type) {
  switch (type) {
    case GgufType::Q4_0:
      return q4_0;
    case GgufType::Q4_1:
      return q4_1;
    case GgufType::Q5_0:
      return q5_0;
    case GgufType::Q5_1:
      return q5_1;
    case GgufType::Q8_0:
      return q8_0;
    case GgufType::Q2_K:
      return q2_k;
    case GgufType::Q3_K:
      return q3_k;
    case GgufType::Q4_K:
      return q4_k;
    case GgufType::Q5_K:
      return q5_k;
    case GgufType::Q6_K:
      return q6_k;
    case GgufType::IQ4_NL:
      return iq4_nl;
    case GgufType::IQ4_XS:
      return iq4_xs;
    case GgufType::F32:
    case GgufType::F16:
    case GgufType::BF16:
      break;
  }
  return nullptr;
}

}  // namespace

std::optional<GgufBlock> gguf_block(uint32_t type) noexcept {
  for (const GgufBlock& block : kBlocks) {
    if (static_cast<uint32_t>(block.type) == type) return block;
  }
  return std::nullopt;
}

std::optional<GgufBlock> gguf_block_named(std::string_view name) noexcept {
  for (const GgufBlock& block : kBlocks) {
    if (block.name == name) return block;
  }
  return std::nullopt;
}

std::string_view gguf_type_name(uint32_t type) noexcept {
  if (const auto block = gguf_block(type)) return block->name;
  for (const OtherType& other : kOthers) {
    if (other.id == type) return other.name;
  }
  return {};
}

void dequantize_blocks(GgufType type, const std::byte* blocks, std::span<float> out) noexcept {
  if (type == GgufType::F32) {
    std::memcpy(out.data(), blocks, out.size_bytes());
    return;
  }
  if (type == GgufType::F16 || type == GgufType::BF16) {
    for (size_t i = 0; i < out.size(); ++i) {
      const uint16_t bits = u16(blocks + 2 * i);
      out[i] = type == GgufType::F16 ? from_f16(bits) : from_bf16(bits);
    }
    return;
  }
  const GgufBlock block = *gguf_block(static_cast<uint32_t>(type));
  const BlockFn function = block_function(type);
  for (size_t i = 0; i < out.size(); i += static_cast<size_t>(block.weights)) {
    function(blocks, out.data() + i);
    blocks += block.bytes;
  }
}

}  // namespace quern
