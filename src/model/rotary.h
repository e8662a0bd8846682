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
// `alpha` stretches the base: base · alpha^(rot / (rot - 2)). `length` counts where the scaling
// depends on the tokens that are there (Dynamic, LongRope); 0 is within the original context.
std::vector<float> inverse_frequencies(const Config& config, double alpha, int64_t length = 0);

// What cosines and sines are multiplied by: 1 but for YaRN and LongRope.
float rotary_magnitude(const Config& config);

// The frequencies of one sequence as it grows. A scaling that depends on the length takes the
// prompt's for all of the prompt, however it is fed, and for a later token the length with it: what
// the reference does when it prefills in one call. Cached keys are never turned again.
class SequenceFrequencies {
 public:
  SequenceFrequencies() = default;
  SequenceFrequencies(const Config& config, double alpha, int64_t prompt_length);

  std::span<const float> at(int64_t position);  // [rotary_dim / 2], valid until the next call
  // Equal for sequences whose keys at equal positions of their prompts are turned alike.
  double key() const noexcept { return key_; }

 private:
  std::vector<float> within_, beyond_;
  Config config_;  // Dynamic: what `beyond_` is made from, for `beyond_length_` tokens
  bool dynamic_ = false;
  int64_t original_ = 0;  // 0: the length does not count
  int64_t prompt_length_ = 0, beyond_length_ = 0;
  double key_ = 1;
};

// cos and sin rows [rotary_dim / 2] of one position: the angle is the float32 product of position
// and inverse frequency, as in the reference, whose rounding matters at long positions.
void fill_rotary(float* cos, float* sin, std::span<const float> inverse_frequencies,
                 int64_t position, float magnitude) noexcept;

// LogN's factor for the query at 0-based absolute `position`: ln(p + 1) / ln(trained) past the
// trained length, else 1.
float logn_factor(int64_t position, int64_t trained_context) noexcept;

}  // namespace quern
