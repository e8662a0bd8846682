// A running mean with its standard error.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "evaluate/item.h"

namespace quern {

struct Mean {
  double sum = 0, squares = 0;
  int64_t count = 0;

  void add(double x) {
    sum += x;
    squares += x * x;
    ++count;
  }
  double mean() const { return count == 0 ? 0 : sum / static_cast<double>(count); }
  // The standard error of the mean: the sample's deviation over the root of its size.
  double error() const {
    if (count < 2) return 0;
    const auto n = static_cast<double>(count);
    const double variance = std::max(0.0, (squares - sum * sum / n) / (n - 1));
    return std::sqrt(variance / n);
  }
  MetricValue value() const { return {mean(), error(), count}; }
};

}  // namespace quern
