#include "model/rotary.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace quern {
namespace {

// YaRN (Peng et al. 2023): dims that turn often keep their frequency, those that hardly turn are
// interpolated, with a linear ramp between.
void apply_yarn(std::vector<float>& frequencies, const Config& c) {
  const RopeScaling& s = c.rope_scaling;
  const double dim = static_cast<double>(c.rotary_dim);
  // The dim that makes `turns` rotations over the original context.
  const auto dim_of = [&](double turns) {
    return dim * std::log(s.original_context / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(c.rope_theta));
  };
  const auto whole = [&](double value, auto round) { return s.truncate ? round(value) : value; };
  const double low =
      std::max(whole(dim_of(s.beta_fast), [](double v) { return std::floor(v); }), 0.0);
  double high =
      std::min(whole(dim_of(s.beta_slow), [](double v) { return std::ceil(v); }), dim - 1);
  if (low == high) high += 0.001;
  for (size_t j = 0; j < frequencies.size(); ++j) {
    const double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
    const double plain = frequencies[j];
    frequencies[j] = static_cast<float>(plain / s.factor * ramp + plain * (1 - ramp));
  }
}

// LLaMA 3.1's rule: long wavelengths are divided by the factor, short ones kept, those between
// interpolated smoothly.
void apply_llama3(std::vector<float>& frequencies, const RopeScaling& s) {
  const double low_wavelength = s.original_context / s.low_freq_factor;
  const double high_wavelength = s.original_context / s.high_freq_factor;
  for (float& frequency : frequencies) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    if (wavelength < high_wavelength) continue;
    if (wavelength > low_wavelength) {
      frequency = static_cast<float>(frequency / s.factor);
      continue;
    }
    const double smooth = (s.original_context / wavelength - s.low_freq_factor) /
                          (s.high_freq_factor - s.low_freq_factor);
    frequency = static_cast<float>((1 - smooth) * frequency / s.factor + smooth * frequency);
  }
}

}  // namespace

double ntk_alpha(int64_t length, int64_t trained_context) noexcept {
  const double ratio = static_cast<double>(length) / static_cast<double>(trained_context);
  const double alpha = std::exp2(std::ceil(std::log(ratio) / std::log(2.0) + 1)) - 1;
  return std::max(alpha, 1.0);
}

double dynamic_alpha(const RopeScaling& s, int64_t length) noexcept {
  const auto n = static_cast<double>(length);
  if (s.type != RopeScaling::Type::Dynamic || n <= s.original_context) return 1;
  return s.factor * n / s.original_context - (s.factor - 1);
}

bool takes_long_factors(const Config& c, int64_t length) noexcept {
  const RopeScaling& s = c.rope_scaling;
  return s.type == RopeScaling::Type::LongRope &&
         static_cast<double>(length) > s.original_context && s.short_factors != s.long_factors;
}

std::vector<float> local_inverse_frequencies(const Config& c) {
  if (c.rope_local_theta <= 0) return {};
  Config local = c;
  local.rope_theta = c.rope_local_theta;
  local.rope_scaling = {};
  return inverse_frequencies(local, 1);
}

std::vector<float> alibi_slopes(const Config& c) {
  std::vector<float> slopes;
  if (c.alibi_max <= 0) return slopes;
  int64_t m = 1;
  while (m < c.heads) m *= 2;
  const double scale = c.alibi_scaled ? 1 / std::sqrt(static_cast<double>(c.head_dim)) : 1;
  const auto add = [&](int64_t first, int64_t step) {
    for (int64_t h = first; h <= m && std::ssize(slopes) < c.heads; h += step) {
      const double exponent = -c.alibi_max * static_cast<double>(h) / static_cast<double>(m);
      slopes.push_back(static_cast<float>(std::exp2(exponent) * scale));
    }
  };
  if (m == c.heads) {
    add(1, 1);
  } else {
    add(2, 2);  // those of the power of two below
    add(1, 2);
  }
  return slopes;
}

std::vector<float> inverse_frequencies(const Config& c, double alpha, int64_t length) {
  const RopeScaling& s = c.rope_scaling;
  const double rotated = static_cast<double>(c.rotary_dim);
  // With two rotated dims the exponent has no meaning, and one frequency of 1 has no base.
  const double base = alpha == 1 || c.rotary_dim <= 2
                          ? c.rope_theta
                          : c.rope_theta * std::pow(alpha, rotated / (rotated - 2));
  const std::vector<float>& factors =
      takes_long_factors(c, length) ? s.long_factors : s.short_factors;
  std::vector<float> frequencies(static_cast<size_t>(c.rotary_dim / 2));
  for (size_t j = 0; j < frequencies.size(); ++j) {
    const float exponent = static_cast<float>(2 * j) / static_cast<float>(c.rotary_dim);
    auto turns = static_cast<float>(std::pow(base, static_cast<double>(exponent)));
    if (s.type == RopeScaling::Type::LongRope) turns *= factors[j];
    frequencies[j] = 1.0f / turns;
  }
  switch (s.type) {
    case RopeScaling::Type::None:
    case RopeScaling::Type::Dynamic:   // in alpha
    case RopeScaling::Type::LongRope:  // above
      break;
    case RopeScaling::Type::Linear:
      for (float& f : frequencies) f = static_cast<float>(f / s.factor);
      break;
    case RopeScaling::Type::Yarn:
      apply_yarn(frequencies, c);
      break;
    case RopeScaling::Type::Llama3:
      apply_llama3(frequencies, s);
      break;
  }
  return frequencies;
}

float rotary_magnitude(const Config& c) {
  const RopeScaling& s = c.rope_scaling;
  const bool yarn = s.type == RopeScaling::Type::Yarn;
  if (!yarn && s.type != RopeScaling::Type::LongRope) return 1;
  if (s.attention_factor) return static_cast<float>(*s.attention_factor);
  if (s.factor <= 1) return 1;
  if (!yarn) {
    return static_cast<float>(std::sqrt(1 + std::log(s.factor) / std::log(s.original_context)));
  }
  const auto of = [&](double scale) { return 0.1 * scale * std::log(s.factor) + 1; };
  // As the reference has it, only both together count.
  if (s.mscale.value_or(0) != 0 && s.mscale_all_dim.value_or(0) != 0) {
    return static_cast<float>(of(*s.mscale) / of(*s.mscale_all_dim));
  }
  return static_cast<float>(of(1));
}

void fill_rotary(float* cos, float* sin, std::span<const float> frequencies, int64_t position,
                 float magnitude) noexcept {
  for (size_t j = 0; j < frequencies.size(); ++j) {
    const float angle = static_cast<float>(position) * frequencies[j];
    cos[j] = std::cos(angle) * magnitude;
    sin[j] = std::sin(angle) * magnitude;
  }
}

float logn_factor(int64_t position, int64_t trained_context) noexcept {
  if (position + 1 <= trained_context) return 1;
  return static_cast<float>(std::log(static_cast<double>(position + 1)) /
                            std::log(static_cast<double>(trained_context)));
}

}  // namespace quern
