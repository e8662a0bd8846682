#include "train/preference.h"

#include <cmath>

namespace quern {
namespace {

// A row without the padding behind its last label.
TrainingBatch row_of(const TrainingBatch& rows, int64_t index) {
  const auto seq = static_cast<size_t>(rows.seq);
  const size_t at = static_cast<size_t>(index) * seq;
  size_t length = seq;
  while (length > 2 && rows.labels[at + length - 1] == kIgnoredLabel) --length;
  return {1,
          static_cast<int64_t>(length),
          rows.ids.subspan(at, length),
          rows.labels.subspan(at, length),
          {}};
}

}  // namespace

PairGradient preference_loss(const PairScores& s, const TuneOptions::Preference& options) {
  PairGradient out;
  const double chosen = s.chosen - s.reference_chosen, rejected = s.rejected - s.reference_rejected;
  out.margin = options.beta * (chosen - rejected);
  if (options.squared) {
    const auto n = static_cast<double>(s.chosen_tokens), m = static_cast<double>(s.rejected_tokens);
    const double off = chosen / n - rejected / m - 1 / (2 * options.beta);
    out.loss = off * off;
    out.by_chosen = 2 * off / n;
    out.by_rejected = -2 * off / m;
    return out;
  }
  const double z = out.margin;
  out.loss = z > 0 ? std::log1p(std::exp(-z)) : -z + std::log1p(std::exp(z));
  out.by_chosen = -options.beta / (1 + std::exp(z));
  out.by_rejected = -out.by_chosen;
  return out;
}

PreferenceLoss preference_pass(TrainingPass& pass, const Weights& weights, const Weights& reference,
                               const TrainingBatch& rows, const TuneOptions::Preference& options,
                               const GradientSink* sink) {
  PreferenceLoss total;
  total.pairs = rows.batch / 2;
  for (int64_t pair = 0; pair < total.pairs; ++pair) {
    const TrainingBatch chosen = row_of(rows, 2 * pair), rejected = row_of(rows, 2 * pair + 1);
    const LossSum of_chosen = pass.loss(weights, chosen),
                  of_rejected = pass.loss(weights, rejected);
    const PairScores scores = {.chosen = -of_chosen.loss,
                               .rejected = -of_rejected.loss,
                               .reference_chosen = -pass.loss(reference, chosen).loss,
                               .reference_rejected = -pass.loss(reference, rejected).loss,
                               .chosen_tokens = std::max<int64_t>(1, of_chosen.count),
                               .rejected_tokens = std::max<int64_t>(1, of_rejected.count)};
    const PairGradient gradient = preference_loss(scores, options);
    total.loss += gradient.loss;
    total.margin += gradient.margin;
    total.preferred += gradient.margin > 0;
    if (sink == nullptr) continue;
    // The pass differentiates the summed loss of a row, which is the log-probability's negative.
    const auto scale = [&](double slope) {
      return static_cast<float>(-slope / static_cast<double>(total.pairs));
    };
    pass.forward_backward(weights, *sink, chosen, scale(gradient.by_chosen));
    pass.forward_backward(weights, *sink, rejected, scale(gradient.by_rejected));
  }
  return total;
}

}  // namespace quern
