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
// `alpha` stretches the base: base · alpha^(rot / (rot - 2)). `length` is what LongRope's factors
// depend on; 0 is within the original context.
std::vector<float> inverse_frequencies(const Config& config, double alpha, int64_t length = 0);

// The frequencies of layers with RopeUse::Local, which no scaling stretches; empty without such layers.
std::vector<float> local_inverse_frequencies(const Config& config);

// What dynamic scaling (RopeScaling::Type::Dynamic) takes for alpha in a prompt of `length` tokens:
// factor · length / original - (factor - 1), 1 up to the original length. 1 for the other types.
double dynamic_alpha(const RopeScaling& scaling, int64_t length) noexcept;

// Whether a sequence of so many tokens has other inverse frequencies than a shorter one: LongRope's.
bool takes_long_factors(const Config& config, int64_t length) noexcept;

// ALiBi's slopes [heads] (Press et al. 2021): for the m heads of the next power of two, 2^(-max h /
// m), h = 1 to m; where m exceeds the heads, even h first, then odd ones. Empty without ALiBi.
std::vector<float> alibi_slopes(const Config& config);

// What cosines and sines are multiplied by: 1 but for YaRN and LongRope.
float rotary_magnitude(const Config& config);

// cos and sin rows [rotary_dim / 2] of one position: the angle is the float32 product of position
// and inverse frequency, as in the reference, whose rounding matters at long positions.
void fill_rotary(float* cos, float* sin, std::span<const float> inverse_frequencies,
                 int64_t position, float magnitude) noexcept;

// LogN's factor for the query at 0-based absolute `position`: ln(p + 1) / ln(trained) past the
// trained length, else 1.
float logn_factor(int64_t position, int64_t trained_context) noexcept;

}  // namespace quern
