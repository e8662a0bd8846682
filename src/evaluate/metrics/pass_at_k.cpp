#include "evaluate/metrics/pass_at_k.h"

namespace quern {

double pass_at_k(SampleCounts counts, int64_t k) {
  const int64_t failed = counts.samples - counts.passed;
  if (failed < k) return 1;
  // C(failed, k) / C(n, k) as a product, which cannot overflow.
  double none = 1;
  for (int64_t i = failed + 1; i <= counts.samples; ++i) {
    none *= 1 - static_cast<double>(k) / static_cast<double>(i);
  }
  return 1 - none;
}

double pass_at_k(std::span<const SampleCounts> tasks, int64_t k) {
  double sum = 0;
  for (const SampleCounts& task : tasks) sum += pass_at_k(task, k);
  return tasks.empty() ? 0 : sum / static_cast<double>(tasks.size());
}

}  // namespace quern
