// What is asked of a model and what comes back.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "generate/sampler.h"
#include "generate/stop.h"
#include "grammar/constraint.h"

namespace quern {

class Adapter;

// Failed: the sequence's own numbers went wrong; its neighbours go on.
enum class FinishReason { Stop, Length, Interrupted, Failed };
std::string_view name(FinishReason reason) noexcept;

// One vector for a whole prompt instead of new tokens.
enum class Pooling { None, Mean, Last };

struct Request {
  std::vector<TokenId> ids;  // the prompt: at least one
  SamplingOptions sampling;
  StopRules stop;
  int64_t max_new_tokens = 512;
  int64_t top_logprobs = -1;  // -1: no logprobs; 0: of the chosen token; n: of the n likeliest too
  int64_t prompt_logprobs = -1;  // the same for the prompt's ids, given what stands before each
  // Index of the first id whose log-probability is wanted. What stands before it needs no logits, so
  // it may come from the prefix cache: a few-shot prompt is computed once for all its continuations.
  int64_t prompt_logprobs_from = 1;
  double max_seconds = 0;  // from its arrival; then it ends with what it has; 0: no limit
  uint64_t stream = 0;     // tells samples of one prompt apart
  bool truncate = false;   // an over-long prompt loses its beginning instead of being an error
  // What this request answers with beside the model's own weights; null for those alone. Its rank is
  // at most EngineOptions::adapter_rank.
  std::shared_ptr<const Adapter> adapter;
  bool text_start = false;  // the new tokens begin a text (nothing was there before them)
  Pooling pooling = Pooling::None;
  std::shared_ptr<Constraint> constraint;  // shared with nobody else; may be null

  // What the prompt has in common with earlier ones of the same salt is not computed again. The
  // salt keeps strangers from learning by the clock what others asked.
  bool reuse_prefix = false;
  std::string cache_salt;
};

struct NewToken {
  TokenId id;
  std::string text;  // what may be shown now; may be empty, or more than this token's
  std::optional<Logprobs> logprobs;
};

struct Completion {
  std::vector<TokenId> ids;  // new tokens, with the one that ended it
  std::string text;          // without stop strings and special tokens
  std::vector<Logprobs> logprobs;
  std::vector<Logprobs> prompt_logprobs;  // of the prompt's ids from prompt_logprobs_from on
  std::vector<float> embedding;           // [hidden], with Request::pooling
  FinishReason reason = FinishReason::Length;
  std::exception_ptr failure;  // with FinishReason::Failed
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;   // of the prompt, taken over from earlier requests
  double queue_seconds = 0;    // until its first step
  double prefill_seconds = 0;  // from there to the first token
  double decode_seconds = 0;
};

}  // namespace quern
