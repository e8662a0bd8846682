// Weights to GGUF's blocks: see gguf_blocks.h.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/dtype.h"
#include "formats/gguf_blocks.h"

namespace quern {
namespace {

void put16(std::byte* p, uint16_t value) {
  p[0] = static_cast<std::byte>(value & 0xFF);
  p[1] = static_cast<std::byte>(value >> 8);
}

// The scale is the file's, so levels are counted in what will be multiplied back.
void to_q8_0(const float* w, std::byte* b) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::abs(w[i]));
  const uint16_t half = to_f16(largest / 127);
  const float d = from_f16(half);
  put16(b, half);
  for (int i = 0; i < 32; ++i) {
    const float level = d > 0 ? std::clamp(std::round(w[i] / d), -127.0f, 127.0f) : 0;
    b[2 + i] = static_cast<std::byte>(static_cast<int8_t>(level));
  }
}

// Levels -8 to 7: the value farthest from 0 becomes -8, whatever its sign.
void to_q4_0(const float* w, std::byte* b) {
  float farthest = 0;
  for (int i = 0; i < 32; ++i) {
    if (std::abs(w[i]) > std::abs(farthest)) farthest = w[i];
  }
  const uint16_t half = to_f16(farthest / -8);
  const float d = from_f16(half);
  put16(b, half);
  const auto level = [&](float value) {
    return static_cast<unsigned>(d != 0 ? std::clamp(std::round(value / d) + 8, 0.0f, 15.0f) : 8);
  };
  for (int i = 0; i < 16; ++i)
    b[2 + i] = static_cast<std::byte>(level(w[i]) | level(w[i + 16]) << 4);
}

// Q4_K: 256 weights in eight groups of 32 with weight = scale · level - min, level from 0 to 15,
// scale and min from 0 up; these in turn are levels of six bits of the block's d and dmin.
constexpr int kGroup = 32, kGroups = 8, kMostLevel = 15, kMostScale = 63;

struct Affine {
  float scale = 0, min = 0;
};

// Sums as vectors of four, in an order that does not depend on the compiler.
template <class F>
float sum_of_group(F&& term) {
  std::array<float, 8> lanes = {};
  for (int i = 0; i < kGroup; i += 8) {
    for (int l = 0; l < 8; ++l) lanes[static_cast<size_t>(l)] += term(i + l);
  }
  float sum = 0;
  for (float lane : lanes) sum += lane;
  return sum;
}

// To the nearest whole number, for |x| < 2^22: without a call, so that loops become vectors.
float nearest(float x) {
  constexpr float kWhole = 12582912.0f;  // 1.5 · 2^23, from where on floats are whole numbers
  return x + kWhole - kWhole;
}

struct Group {
  std::array<float, kGroup> level = {};
  float error = 0;  // sum of squares
};

Group levels_of(const float* w, Affine a) {
  Group out;
  const float inverse = a.scale > 0 ? 1 / a.scale : 0;
  for (size_t i = 0; i < kGroup; ++i) {
    const float level = std::min((w[i] + a.min) * inverse, float{kMostLevel});
    out.level[i] = nearest(std::max(level, 0.0f));
  }
  out.error = sum_of_group([&](int i) {
    const float lost = w[i] + a.min - a.scale * out.level[static_cast<size_t>(i)];
    return lost * lost;
  });
  return out;
}

// The scale and min that lose least with these levels: linear regression, with no min below 0.
Affine regression(const float* w, const std::array<float, kGroup>& level) {
  const auto q = [&](int i) { return level[static_cast<size_t>(i)]; };
  const float sum_q = sum_of_group(q);
  const float sum_qq = sum_of_group([&](int i) { return q(i) * q(i); });
  const float sum_w = sum_of_group([&](int i) { return w[i]; });
  const float sum_wq = sum_of_group([&](int i) { return w[i] * q(i); });
  const float spread = kGroup * sum_qq - sum_q * sum_q;
  if (spread > 0) {
    const float scale = (kGroup * sum_wq - sum_w * sum_q) / spread;
    const float min = (scale * sum_q - sum_w) / kGroup;
    if (scale > 0 && min >= 0) return {scale, min};
  }
  return {sum_qq > 0 ? std::max(0.0f, sum_wq / sum_qq) : 0, 0};
}

// Starts from grids over the group's range and a little beyond or within it, since losing the
// outermost weights can make the others closer.
Affine best_affine(const float* w) {
  const auto [low, high] = std::minmax_element(w, w + kGroup);
  const float min = std::max(0.0f, -*low), range = *high + min;
  if (range <= 0) return {0, min};
  Affine best{range / kMostLevel, min};
  float least = levels_of(w, best).error;
  for (float steps = 13.5f; steps <= 18.0f; steps += 0.5f) {
    Affine a{range / steps, min};
    for (int pass = 0; pass < 2; ++pass) {
      a = regression(w, levels_of(w, a).level);
      const float error = levels_of(w, a).error;
      if (error < least) {
        least = error;
        best = a;
      }
    }
  }
  return best;
}

// The group's scale and min in levels of d and dmin: of the nearest and those beside it the pair
// that loses least.
void store_group(const float* w, Affine wanted, float d, float dmin, int group, std::byte* b) {
  const auto level = [](float value, float step) {
    return step > 0 ? static_cast<int>(nearest(std::min(value / step, float{kMostScale}))) : 0;
  };
  const int scale = level(wanted.scale, d), min = level(wanted.min, dmin);
  Group best = levels_of(w, {});  // weights below what d and dmin can hold are nothing
  int best_scale = 0, best_min = 0;
  for (int s = std::max(0, scale - 1); s <= std::min(kMostScale, scale + 1); ++s) {
    for (int m = std::max(0, min - 1); m <= std::min(kMostScale, min + 1); ++m) {
      const Group got = levels_of(w, {d * static_cast<float>(s), dmin * static_cast<float>(m)});
      if (got.error >= best.error) continue;
      best = got;
      best_scale = s;
      best_min = m;
    }
  }
  // Six bits each: of the last four groups the low four share a byte, and the high two stand above
  // the bits of the first four.
  std::byte* bits = b + 4;
  if (group < 4) {
    bits[group] |= static_cast<std::byte>(best_scale);
    bits[group + 4] |= static_cast<std::byte>(best_min);
  } else {
    bits[group + 4] |= static_cast<std::byte>((best_scale & 15) | (best_min & 15) << 4);
    bits[group - 4] |= static_cast<std::byte>(best_scale >> 4 << 6);
    bits[group] |= static_cast<std::byte>(best_min >> 4 << 6);
  }
  for (int i = 0; i < kGroup; ++i) {
    const auto q = static_cast<unsigned>(best.level[static_cast<size_t>(i)]);
    b[16 + group / 2 * kGroup + i] |= static_cast<std::byte>(group % 2 == 0 ? q : q << 4);
  }
}

void to_q4_k(const float* w, std::byte* b) {
  std::array<Affine, kGroups> wanted;
  float scale = 0, min = 0;
  for (size_t group = 0; group < kGroups; ++group) {
    wanted[group] = best_affine(w + group * kGroup);
    scale = std::max(scale, wanted[group].scale);
    min = std::max(min, wanted[group].min);
  }
  const uint16_t d = to_f16(scale / kMostScale), dmin = to_f16(min / kMostScale);
  std::memset(b, 0, static_cast<size_t>(gguf_block_named("Q4_K")->bytes));
  put16(b, d);
  put16(b + 2, dmin);
  for (int group = 0; group < kGroups; ++group) {
    store_group(w + group * kGroup, wanted[static_cast<size_t>(group)], from_f16(d), from_f16(dmin),
                group, b);
  }
}

}  // namespace

void quantize_blocks(GgufType type, std::span<const float> weights, std::byte* blocks) noexcept {
  if (type == GgufType::F32) {
    std::memcpy(blocks, weights.data(), weights.size_bytes());
    return;
  }
  if (type == GgufType::F16 || type == GgufType::BF16) {
    for (size_t i = 0; i < weights.size(); ++i) {
      put16(blocks + 2 * i, type == GgufType::F16 ? to_f16(weights[i]) : to_bf16(weights[i]));
    }
    return;
  }
  const auto to_block = type == GgufType::Q8_0   ? to_q8_0
                        : type == GgufType::Q4_0 ? to_q4_0
                                                 : to_q4_k;
  const GgufBlock block = *gguf_block(static_cast<uint32_t>(type));
  for (size_t i = 0; i < weights.size(); i += static_cast<size_t>(block.weights)) {
    to_block(weights.data() + i, blocks);
    blocks += block.bytes;
  }
}

}  // namespace quern
