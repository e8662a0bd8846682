// Two results of one task, item by item: is the difference more than chance?
#pragma once

#include <string>
#include <vector>

#include "core/json.h"

namespace quern {

struct PairedDifference {
  std::string task, metric, rule;       // rule: "parity" or "fixed"
  double a = 0, b = 0, difference = 0;  // b - a
  // For accuracies: items that only one side has right, and McNemar's exact two-sided p. For BLEU:
  // the share of 1,000 paired resamplings whose difference has the other sign, doubled.
  int64_t only_a = 0, only_b = 0;
  double p = 1;
  std::vector<std::string> changed;  // ids whose verdict differs
};

// Two result files. Throws BadInput naming what differs where task, version, prompts or items do.
std::vector<PairedDifference> compare_results(const Json& a, const Json& b);

// Two-sided exact binomial test of `smaller` against `larger` discordant pairs.
double mcnemar_p(int64_t one, int64_t other);

}  // namespace quern
