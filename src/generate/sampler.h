// Choosing the next token from logits, in the order and with the meaning of Hugging Face's
// generation: logit bias, repetition penalty, frequency and presence penalties, no-repeat n-grams,
// then temperature, top-k, top-p, min-p, typical, and a draw.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "core/rng.h"
#include "text/bpe.h"

namespace quern {

// Defaults change nothing: plain sampling from the model's distribution.
struct SamplingOptions {
  bool greedy = false;     // the most likely token; of equals the one with the lowest id
  double temperature = 1;  // logits are divided by it; 0 means greedy
  int64_t top_k = 0;       // keep the k most likely, ties with the last included; 0 is off
  double top_p = 1;        // keep the fewest whose probabilities reach this; 1 is off
  double min_p = 0;        // keep those at least this fraction of the most likely; 0 is off
  double typical_p = 1;    // locally typical sampling (Meister et al. 2022); 1 is off
  double repetition_penalty =
      1;  // divides positive, multiplies negative logits of ids seen; 1 is off
  double frequency_penalty = 0;  // subtracted for each time an id was generated
  double presence_penalty = 0;   // subtracted once for an id that was generated
  int64_t no_repeat_ngram = 0;   // no n-gram of the text so far is completed again; 0 is off
  std::vector<std::pair<TokenId, float>> logit_bias;
  uint64_t seed = 0;

  // Throws Misused naming the option that is out of its range.
  void check() const;
  bool is_greedy() const noexcept { return greedy || temperature == 0; }
};

struct TokenLogprob {
  TokenId id;
  float logprob;  // natural logarithm
};

// Memory that samplers work in, the same for any number of them that take turns.
struct SamplerScratch {
  struct Candidate {
    TokenId id;
    float logit;
    float weight;  // e^(logit - largest)
  };
  std::vector<Candidate> kept;
  std::vector<float> sorted;
  std::vector<uint8_t> seen;    // of each id: in the history
  std::vector<int32_t> counts;  // of each id: times generated
};

// One sequence's sampler. Its draws depend on seed, stream and the number of tokens drawn, never on
// other sequences.
class Sampler {
 public:
  // `stream` tells the samples of one request apart. `scratch` must outlive the sampler; without
  // one it has its own.
  Sampler(const SamplingOptions& options, int64_t vocab, uint64_t stream = 0,
          SamplerScratch* scratch = nullptr);

  // `history`: the ids so far, the first `prompt_length` of them given. Changes `logits` in place.
  // Throws Failed where a logit is NaN.
  TokenId sample(std::span<float> logits, std::span<const TokenId> history, size_t prompt_length);

  // The distribution that sample() would draw from: [vocab].
  std::vector<float> probabilities(std::span<const float> logits, std::span<const TokenId> history,
                                   size_t prompt_length);

 private:
  using Candidate = SamplerScratch::Candidate;
  void penalize(std::span<float> logits, std::span<const TokenId> history, size_t prompt_length);
  void filter(std::span<const float> logits);
  void keep_top_p();
  void keep_typical();

  SamplingOptions options_;
  Rng rng_;
  std::unique_ptr<SamplerScratch> own_;
  SamplerScratch* scratch_;
};

// Log-probabilities of `chosen` and of the `top` most likely ids, from logits as the model gave
// them.
struct Logprobs {
  float chosen;
  std::vector<TokenLogprob> top;  // most likely first
};
Logprobs logprobs_of(std::span<const float> logits, TokenId chosen, int64_t top);

TokenId argmax(std::span<const float> logits) noexcept;

}  // namespace quern
