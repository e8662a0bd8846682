// Inside the scheduler: a request on its way, and what the scheduler's files share. Nobody else
// includes this.
#pragma once

#include <chrono>
#include <optional>

#include "generate/scheduler.h"

namespace quern {

using Clock = std::chrono::steady_clock;
constexpr int64_t kPageTokens = KvLayout::page_tokens;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

inline int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

inline int64_t size_of(const auto& list) { return static_cast<int64_t>(list.size()); }

// A request from its arrival to its end.
struct Scheduler::Stream {
  Stream(Id number, Request wanted, std::vector<TokenId> prompt, Listener to, KvCache& cache,
         const Config& config, const EngineOptions& options, const Tokenizer* tokenizer,
         SamplerScratch& scratch)
      : id(number),
        request(std::move(wanted)),
        listener(std::move(to)),
        history(std::move(prompt)),
        prompt_length(size_of(history)),
        sequence(cache, config, options.rules, prompt_length),
        sampler(request.sampling, config.output_vocab, request.stream, &scratch),
        stop(request.stop.strings) {
    const int64_t most = std::min(request.max_new_tokens, options.context - prompt_length);
    history.reserve(static_cast<size_t>(prompt_length + most));
    completion.ids.reserve(static_cast<size_t>(most));
    completion.prompt_tokens = prompt_length;
    if (tokenizer != nullptr) decoder.emplace(*tokenizer, true, request.text_start);
    place.key = {request.cache_salt, sequence.rotation(),
                 request.adapter == nullptr ? 0 : request.adapter->id()};
  }

  int64_t length() const { return size_of(history); }
  // Ids that have to go through the model. Where only log-probabilities of the prompt are wanted,
  // nobody asks what follows its last id.
  int64_t needed_length() const {
    const bool only_scored = prompt_only() && request.pooling == Pooling::None;
    return only_scored ? std::max<int64_t>(1, length() - 1) : length();
  }
  bool shares() const { return request.reuse_prefix && request.pooling == Pooling::None; }
  // Positions that the prefix cache may stand in for: those whose logits nobody needs.
  int64_t shareable() const {
    const int64_t most = needed_length() - 1;  // at least one id is fed
    if (request.prompt_logprobs < 0) return most;
    return std::min(most, request.prompt_logprobs_from - 1 + size_of(completion.prompt_logprobs));
  }
  // All but the newest id is in the cache: it generates.
  bool decoding() const { return sequence.length() == length() - 1 && !completion.ids.empty(); }
  // Nothing is left to be made once the prompt is in.
  bool prompt_only() const { return request.max_new_tokens == 0; }

  Id id;
  Request request;
  Listener listener;
  std::vector<TokenId> history;  // prompt and new tokens
  int64_t prompt_length;
  Sequence sequence;
  Sampler sampler;
  StopStrings stop;
  std::optional<StreamDecoder> decoder;
  Completion completion;
  PrefixCache::Place place;
  int64_t kept_length = 0;       // of the history: its full pages are in the prefix cache
  std::vector<TokenId> guessed;  // ids fed after the history's last, to be checked
  bool guess_failed = false;
  Clock::time_point arrived = Clock::now();
  std::optional<Clock::time_point> started, first_token;
  bool done = false;
};

}  // namespace quern
