// Preference optimization: the loss of pairs of answers against a reference model.
#pragma once

#include <cstdint>

#include "model/backward.h"
#include "train/run_config.h"

namespace quern {

// Sums over pairs.
struct PreferenceLoss {
  double loss = 0;
  double margin = 0;      // beta times the gain of the preferred answer over the other
  int64_t preferred = 0;  // pairs whose margin is above 0
  int64_t pairs = 0;
};

// Log-probabilities (natural) of a pair's answers under the model and the reference, and the numbers of
// their tokens.
struct PairScores {
  double chosen = 0, rejected = 0, reference_chosen = 0, reference_rejected = 0;
  int64_t chosen_tokens = 1, rejected_tokens = 1;
};
// One pair's loss and what its derivative is by the two log-probabilities of the model.
//   DPO  -log sigmoid(beta z), z the gain in log-probability (Rafailov et al. 2023, equation 7)
//   IPO  (z - 1 / (2 beta))^2, z the gain by token (Azar et al. 2023, equation 17)
struct PairGradient {
  double loss = 0, margin = 0;
  double by_chosen = 0, by_rejected = 0;
};
PairGradient preference_loss(const PairScores& scores, const TuneOptions::Preference& options);

// Rows [2 * pairs, seq], preferred and other by turns: the loss, and its mean's gradient added to
// `sink`. `pass` holds one sequence. Without a sink the loss alone.
PreferenceLoss preference_pass(TrainingPass& pass, const Weights& weights, const Weights& reference,
                               const TrainingBatch& rows, const TuneOptions::Preference& options,
                               const GradientSink* sink);

}  // namespace quern
