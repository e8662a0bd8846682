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
  const double low = std::max(std::floor(dim_of(s.beta_fast)), 0.0);
  double high = std::min(std::ceil(dim_of(s.beta_slow)), dim - 1);
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

std::vector<float> inverse_frequencies(const Config& c, double alpha) {
  const double rotated = static_cast<double>(c.rotary_dim);
  // With two rotated dims the exponent has no meaning, and one frequency of 1 has no base.
  const double base = alpha == 1 || c.rotary_dim <= 2
                          ? c.rope_theta
                          : c.rope_theta * std::pow(alpha, rotated / (rotated - 2));
  std::vector<float> frequencies(static_cast<size_t>(c.rotary_dim / 2));
  for (size_t j = 0; j < frequencies.size(); ++j) {
    const float exponent = static_cast<float>(2 * j) / static_cast<float>(c.rotary_dim);
    frequencies[j] = 1.0f / static_cast<float>(std::pow(base, static_cast<double>(exponent)));
  }
  switch (c.rope_scaling.type) {
    case RopeScaling::Type::None:
      break;
    case RopeScaling::Type::Linear:
      for (float& f : frequencies) f = static_cast<float>(f / c.rope_scaling.factor);
      break;
    case RopeScaling::Type::Yarn:
      apply_yarn(frequencies, c);
      break;
    case RopeScaling::Type::Llama3:
      apply_llama3(frequencies, c.rope_scaling);
      break;
  }
  return frequencies;
}

float rotary_magnitude(const Config& c) {
  const RopeScaling& s = c.rope_scaling;
  if (s.type != RopeScaling::Type::Yarn) return 1;
  if (s.attention_factor) return static_cast<float>(*s.attention_factor);
  return s.factor <= 1 ? 1 : static_cast<float>(0.1 * std::log(s.factor) + 1);
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
