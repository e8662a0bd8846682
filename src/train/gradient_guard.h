// Watches the norm of the gradients: a step whose loss or norm is not finite, or whose norm lies
// far outside what the last steps had, is not to be taken.
#pragma once

#include <cstdint>

namespace quern {

struct GuardOptions {
  double z_score = 8;          // deviations above the mean of log(norm); 0: only non-finite ones
  int64_t settle_steps = 100;  // steps before the first judgement
  int64_t max_skips = 10;      // skipped in a row before the run gives up
};

class GradientGuard {
 public:
  // Running mean and variance of log(norm), over about the last hundred steps taken.
  struct State {
    int64_t steps = 0;
    double mean = 0, variance = 0;
    int64_t skipped_in_a_row = 0;
  };

  explicit GradientGuard(const GuardOptions& options) : options_(options) {}

  enum class Verdict : uint8_t { Take, NotFinite, Outlier };
  // Judges a step, and learns from its norm if it is to be taken.
  Verdict judge(double loss, double norm) noexcept;
  bool gives_up() const noexcept { return state_.skipped_in_a_row >= options_.max_skips; }
  // The norm above which a step would be an outlier now; infinite while there is no judgement.
  double limit() const noexcept;

  const State& state() const noexcept { return state_; }
  void restore(const State& state) noexcept { state_ = state; }

 private:
  GuardOptions options_;
  State state_;
};

}  // namespace quern
