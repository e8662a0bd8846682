#include "evaluate/tasks/translation.h"

#include <cmath>

#include "core/rng.h"

namespace quern {

nlohmann::ordered_json bleu_details(const BleuCounts& counts) {
  return {{"bleu_matches", counts.matches},
          {"bleu_totals", counts.totals},
          {"bleu_lengths", {counts.hypothesis_tokens, counts.reference_tokens}}};
}

BleuCounts bleu_counts_of(const ItemVerdict& verdict) {
  BleuCounts counts;
  const auto& details = verdict.details;
  for (size_t n = 0; n < 4; ++n) {
    counts.matches[n] = details.at("bleu_matches")[n].get<int64_t>();
    counts.totals[n] = details.at("bleu_totals")[n].get<int64_t>();
  }
  counts.hypothesis_tokens = details.at("bleu_lengths")[0].get<int64_t>();
  counts.reference_tokens = details.at("bleu_lengths")[1].get<int64_t>();
  return counts;
}

Summary bleu_summary(std::span<const Judged> judged) {
  std::vector<BleuCounts> segments;
  BleuCounts all;
  for (const Judged& entry : judged) {
    segments.push_back(bleu_counts_of(*entry.verdict));
    all += segments.back();
  }
  MetricValue value{.value = bleu_score(all).bleu, .count = static_cast<int64_t>(segments.size())};
  if (segments.size() > 1) {
    constexpr int kResamplings = 1000;
    Rng rng(0);
    double sum = 0, squares = 0;
    for (int i = 0; i < kResamplings; ++i) {
      BleuCounts drawn;
      for (size_t j = 0; j < segments.size(); ++j) drawn += segments[rng.below(segments.size())];
      const double bleu = bleu_score(drawn).bleu;
      sum += bleu;
      squares += bleu * bleu;
    }
    const double mean = sum / kResamplings;
    value.standard_error = std::sqrt(std::max(0.0, squares / kResamplings - mean * mean));
  }
  Summary summary;
  summary.all.parity = {{"bleu", value}};
  summary.all.fixed = summary.all.parity;
  return summary;
}

}  // namespace quern
