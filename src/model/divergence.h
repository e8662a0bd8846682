// How far apart two predictions are.
#pragma once

#include <span>

namespace quern {

double log_sum_exp(std::span<const float> logits);

// sum of p log(p / q) of the distributions that two rows of logits stand for, in double; >= 0.
double kl_divergence(std::span<const float> p_logits, std::span<const float> q_logits);

}  // namespace quern
