// Rotary angles (Su et al. 2021) and what stretches them: YaRN, linear, LLaMA 3's rule, and Qwen's
// dynamic NTK; LogN scaling of queries beyond the trained length (Su 2023).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compute/tensor.h"
#include "model/config.h"

namespace quern {

// Dynamic NTK's factor for a prompt of `length` tokens: max(2^ceil(log2(length / trained) + 1) - 1,
// 1), so 1 up to the trained length, 3 up to twice it, 7 up to four times.
double ntk_alpha(int64_t length, int64_t trained_context) noexcept;

// Inverse frequencies [rotary_dim / 2] for one sequence, float32 as the reference computes them.
// `alpha` stretches the base: base · alpha^(rot / (rot - 2)).
std::vector<float> inverse_frequencies(const Config& config, double alpha);

// What cosines and sines are multiplied by: 1 but for YaRN, 0.1 ln(factor) + 1.
float rotary_magnitude(const Config& config);

// cos and sin rows [rotary_dim / 2] of one position: the angle is the float32 product of position
// and inverse frequency, as in the reference, whose rounding matters at long positions.
void fill_rotary(float* cos, float* sin, std::span<const float> inverse_frequencies,
                 int64_t position, float magnitude) noexcept;

// LogN's factor for the query at 0-based absolute `position`: ln(p + 1) / ln(trained) past the
// trained length, else 1.
float logn_factor(int64_t position, int64_t trained_context) noexcept;

}  // namespace quern
