#include "answer/answerer.h"

namespace quern {

SamplingOptions SamplingChoice::on(SamplingOptions s) const {
  // Whoever names a way of sampling wants to sample.
  if (temperature || top_k || top_p || min_p || typical_p) s.greedy = false;
  s.greedy = greedy.value_or(s.greedy);
  s.temperature = temperature.value_or(s.temperature);
  s.top_k = top_k.value_or(s.top_k);
  s.top_p = top_p.value_or(s.top_p);
  s.min_p = min_p.value_or(s.min_p);
  s.typical_p = typical_p.value_or(s.typical_p);
  s.repetition_penalty = repetition_penalty.value_or(s.repetition_penalty);
  s.frequency_penalty = frequency_penalty.value_or(s.frequency_penalty);
  s.presence_penalty = presence_penalty.value_or(s.presence_penalty);
  s.no_repeat_ngram = no_repeat_ngram.value_or(s.no_repeat_ngram);
  s.seed = seed.value_or(s.seed);
  s.logit_bias.insert(s.logit_bias.end(), logit_bias.begin(), logit_bias.end());
  s.check();
  return s;
}

}  // namespace quern
