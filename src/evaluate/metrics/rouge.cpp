#include "evaluate/metrics/rouge.h"

#include "core/python_text.h"
#include "evaluate/metrics/common_subsequence.h"

namespace quern {

RougeScore rouge_l(std::span<const std::string_view> hypothesis,
                   std::span<const std::string_view> reference) {
  if (hypothesis.empty() || reference.empty()) return {};
  const auto common =
      static_cast<double>(CommonSubsequence<std::string_view>(reference).length(hypothesis));
  RougeScore score;
  score.precision = common / static_cast<double>(hypothesis.size());
  score.recall = common / static_cast<double>(reference.size());
  if (common > 0) {
    score.f1 = 2 * score.precision * score.recall / (score.precision + score.recall);
  }
  return score;
}

RougeScore rouge_l(std::string_view hypothesis, std::string_view reference) {
  return rouge_l(python::split(hypothesis), python::split(reference));
}

}  // namespace quern
