// Perplexity: e to the mean negative log-likelihood of a text's tokens.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "generate/model.h"

namespace quern {

struct PerplexityResult {
  double nll = 0;      // summed negative log-likelihood, natural logarithm
  int64_t tokens = 0;  // that were predicted
  double perplexity() const;
};

// Windows of `length` tokens that begin `stride` apart, each a prompt of its own. Tokens that the
// window before has predicted already are context only, so with stride = length every window counts
// its positions 1 to length - 1, and no token is counted twice. `on_progress` gets the tokens done.
PerplexityResult perplexity(Model& model, std::span<const TokenId> ids, int64_t length,
                            int64_t stride, const std::function<void(int64_t)>& on_progress = {});

// Log-probabilities [ids.size() - 1] of ids[1...] in one window.
std::vector<float> token_logprobs(Model& model, Runner& runner, KvCache& cache,
                                  std::span<const TokenId> ids);
// The same under the rules of `sequence`, which is new, with room for all ids.
std::vector<float> token_logprobs(Model& model, Runner& runner, KvCache& cache, Sequence& sequence,
                                  std::span<const TokenId> ids);

}  // namespace quern
