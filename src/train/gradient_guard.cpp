#include "train/gradient_guard.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace quern {
namespace {

// A run whose norms hardly vary must not call a tenth more an outlier.
constexpr double kLeastDeviation = 0.1;

}  // namespace

double GradientGuard::limit() const noexcept {
  if (options_.z_score <= 0 || state_.steps < options_.settle_steps) {
    return std::numeric_limits<double>::infinity();
  }
  const double deviation = std::max(kLeastDeviation, std::sqrt(state_.variance));
  return std::exp(state_.mean + options_.z_score * deviation);
}

GradientGuard::Verdict GradientGuard::judge(double loss, double norm) noexcept {
  const bool finite = std::isfinite(loss) && std::isfinite(norm);
  if (!finite || norm > limit()) {
    ++state_.skipped_in_a_row;
    return finite ? Verdict::Outlier : Verdict::NotFinite;
  }
  state_.skipped_in_a_row = 0;
  ++state_.steps;
  // An exponential mean over 100 steps; the first steps weigh alike.
  const double weight = std::max(0.01, 1 / static_cast<double>(state_.steps));
  const double value = std::log(std::max(norm, 1e-30)), off = value - state_.mean;
  state_.mean += weight * off;
  state_.variance = (1 - weight) * (state_.variance + weight * off * off);
  return Verdict::Take;
}

}  // namespace quern
