// pass@k: the chance that one of k programs drawn from n passes, when c of the n do (Chen et al.,
// "Evaluating large language models trained on code", 2021).
#pragma once

#include <cstdint>
#include <span>

namespace quern {

struct SampleCounts {
  int64_t samples = 0;  // n
  int64_t passed = 0;   // c
};

// The unbiased estimate 1 - C(n - c, k) / C(n, k). n must be at least k.
double pass_at_k(SampleCounts counts, int64_t k);

// The mean over tasks; 0 for none.
double pass_at_k(std::span<const SampleCounts> tasks, int64_t k);

}  // namespace quern
