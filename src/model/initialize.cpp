#include "model/initialize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "core/rng.h"

namespace quern {
namespace {

// FNV-1a: a stream of its own for each tensor's name.
uint64_t stream_of(std::string_view name) noexcept {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return hash;
}

}  // namespace

void initialize(std::span<float> out, const TensorSpec& spec, const Config& config, uint64_t seed,
                int64_t first) {
  if (spec.role == Role::Norm || spec.role == Role::Bias) {
    const float one = 1 - config.norm_offset;  // whose norms add it to their weights
    std::fill(out.begin(), out.end(), spec.role == Role::Norm ? one : 0.0f);
    return;
  }
  if (spec.role == Role::LoraB) {
    std::fill(out.begin(), out.end(), 0.0f);
    return;
  }
  // PEFT's first factor is nn.Linear's, uniform in +-1 / sqrt(inputs).
  const bool uniform = spec.role == Role::LoraA;
  const float bound = uniform ? 1 / std::sqrt(static_cast<float>(spec.shape[1])) : 0;
  const bool residual = spec.part == Part::AttnOut || spec.part == Part::Down;
  const double depth = residual ? std::sqrt(2.0 * static_cast<double>(config.layers)) : 1;
  const auto deviation = static_cast<float>(config.initializer_range / depth);
  const uint64_t stream = stream_of(spec.name);
  const std::array<uint32_t, 2> key = {static_cast<uint32_t>(seed),
                                       static_cast<uint32_t>(seed >> 32)};
  // Four values from each Philox block (Box-Muller); element i belongs to block i / 4.
  for (size_t i = 0; i < out.size();) {
    const uint64_t index = static_cast<uint64_t>(first) + i, block = index / 4;
    const auto words = philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                               static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)},
                              key);
    std::array<float, 4> values;
    for (size_t k = 0; uniform && k < 4; ++k) {
      values[k] = bound * (static_cast<float>(words[k] >> 8) * 0x1p-23f - 1);
    }
    for (size_t pair = uniform ? 2 : 0; pair < 2; ++pair) {
      const float u = (static_cast<float>(words[2 * pair] >> 8) + 0.5f) * 0x1p-24f;
      const float angle = static_cast<float>(words[2 * pair + 1] >> 8) * 0x1p-24f * 2.0f *
                          std::numbers::pi_v<float>;
      const float radius = deviation * std::sqrt(-2.0f * std::log(u));
      values[2 * pair] = radius * std::cos(angle);
      values[2 * pair + 1] = radius * std::sin(angle);
    }
    for (uint64_t k = index % 4; k < 4 && i < out.size(); ++k) out[i++] = values[k];
  }
}

}  // namespace quern
