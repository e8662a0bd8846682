// How far one model's predictions are from another's, on the same text.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "generate/model.h"

namespace quern {

struct Comparison {
  int64_t tokens = 0;           // that were predicted
  double nll_a = 0, nll_b = 0;  // summed negative log-likelihoods
  double kl_mean = 0;           // of B's distribution from A's: sum of p_A log(p_A / p_B), in nats
  double kl_p99 = 0;            // the 99th percentile over positions
  double kl_max = 0;
  std::vector<float> kl;  // of all positions, ascending
  double top1 = 0;        // share of positions with the same likeliest token
  // The error of the residual stream after each block: sum of (B - A)² over sum of A². Empty where
  // the two models' shapes differ.
  std::vector<double> block_error;
};

// Windows of `length` tokens side by side, as perplexity() takes them. The models must have the
// same number of output ids. `on_progress` gets the tokens done.
Comparison compare(Model& a, Model& b, std::span<const TokenId> ids, int64_t length,
                   const std::function<void(int64_t)>& on_progress = {});

}  // namespace quern
