// Continuous batching: requests come and go at any time, and every step is one forward pass over
// all that run. A request gives the same bytes alone and in a crowd, because no sum of the kernels
// depends on what else is in the batch and each sequence has its own sampler.
//
// Steps first take one token of every sequence that generates, then pieces of prompts as far as
// the step's time allows, so that a long prompt slows streams down but never stops them. Memory is
// pages of the KV cache: a request starts when its prompt's pages are there, takes more as it
// grows, and when they run out the youngest gives its own back and is computed again later.
//
// One thread owns a Scheduler; nothing here locks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "generate/drafter.h"
#include "generate/prefix_cache.h"
#include "generate/request.h"
#include "model/forward.h"
#include "text/tokenizer.h"

namespace quern {

struct EngineOptions {
  DType kv_type = DType::F32;  // F32, F16, BF16, or U8 for the release's 8-bit cache
  int64_t context = 0;         // positions a sequence may have; 0: the model's max_context
  int64_t chunk = 512;         // tokens of prompts fed in one step at most
  ContextRules rules;          // dynamic NTK and LogN
  double step_seconds = 0.25;  // prompts beside running streams are cut to about this time a step
  double queue_seconds = 0;    // a request that waits longer for its turn fails; 0: no limit
  int64_t adapter_rank = 0;    // of requests' adapters at most
  int64_t speculate = 0;       // tokens guessed and checked in one step; 0: off
  // Who guesses: a smaller model of the same vocabulary, or without one the text's own past.
  struct Draft {
    const Config* config = nullptr;
    const Weights* weights = nullptr;
    ContextRules rules;
  } draft;
};

class Scheduler {
 public:
  struct Listener {
    std::function<void(const NewToken& token)> token;  // may be empty
    std::function<void(Completion completion)> done;   // the last call for a request
  };

  // `capacity`: positions of the KV cache over all sequences; `sequences`: how many run at once.
  // `tokenizer` may be null: then there is no text. A context of more positions than the cache has
  // becomes as many as it has.
  Scheduler(const Network& network, const Tokenizer* tokenizer, const EngineOptions& options,
            int64_t capacity, int64_t sequences);
  // What the buffers of its steps take. `lora_rank`: of the weights' adapters, 0 without; that of
  // requests' adapters is in `options`.
  static uint64_t scratch_bytes(const Config& config, const EngineOptions& options,
                                int64_t sequences, int64_t lora_rank) noexcept {
    return Runner::memory_bytes(config, steady_tokens(options, sequences), logit_rows(sequences),
                                std::max(lora_rank, options.adapter_rank));
  }
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  using Id = uint64_t;
  // Takes a request; its listener is called by later steps. Throws BadInput, naming both numbers,
  // for a prompt longer than the context or an adapter of too high a rank, and what
  // SamplingOptions::check() throws.
  Id add(Request request, Listener listener);
  // Ends a request with what it has, before the next step; `done` is called now. Nothing happens
  // where it is over already.
  void cancel(Id id);
  void cancel_all();

  // One forward pass. False when there is nothing to do.
  bool step();

  // For when there is nothing to do: has the system clear some of the memory that steps are going
  // to write, which they would wait for. False when nothing is left of it.
  bool prepare();

  int64_t context() const noexcept { return options_.context; }
  const EngineOptions& options() const noexcept { return options_; }

  struct Load {
    int64_t running = 0, waiting = 0;
    int64_t pages = 0, free_pages = 0, kept_pages = 0;  // kept: in the prefix cache
    // Since the start:
    int64_t prompt_tokens = 0, cached_tokens = 0, new_tokens = 0;
    int64_t steps = 0, preemptions = 0, cancellations = 0;
    int64_t guessed_tokens = 0, accepted_tokens = 0;
    double step_seconds = 0;
  };
  Load load() const;

 private:
  struct Stream;
  using StreamPtr = std::unique_ptr<Stream>;
  struct Row {
    Stream* stream;
    int64_t position;  // of the id whose successor the row's logits tell
  };

  void expire();
  std::vector<TokenId> fit(Request& request) const;
  void admit();
  bool try_admit(Stream& stream);
  bool make_room(int64_t pages);
  bool grow(size_t index, int64_t tokens);
  void preempt_last();
  void restart(Stream& stream);
  void plan();
  void group_by_adapter();
  void make_runner(int64_t tokens);
  // What a step feeds at most while nothing unusual happens, and the rows of logits at a time.
  static int64_t steady_tokens(const EngineOptions& options, int64_t sequences) noexcept {
    return options.chunk + sequences * (1 + options.speculate);
  }
  static int64_t logit_rows(int64_t sequences) noexcept { return std::min<int64_t>(sequences, 64); }
  void plan_prompts(int64_t room);
  bool about_to_be_cached(const Stream& stream) const;
  void add_item(Stream& stream, int64_t count);
  int64_t prompt_room(bool beside_streams) const;
  void learn_times(double seconds, int64_t prompt_tokens);
  int64_t guesses_wanted(const Stream& stream) const;
  void guess();
  void look_up(Stream& stream, int64_t most) const;
  void consume(const Row& row, std::span<float> logits);
  NewToken take_token(Stream& stream, std::span<float> logits);
  void pool(Stream& stream, ConstRows hidden);
  void keep_pages(Stream& stream);
  void end(Stream& stream, FinishReason reason);
  void finish(StreamPtr stream);

  Network network_;
  const Config& config_;
  const Tokenizer* tokenizer_;
  EngineOptions options_;
  KvPolicy policy_;
  int64_t max_sequences_;
  KvCache cache_;
  PrefixCache prefixes_;
  SamplerScratch scratch_;
  std::unique_ptr<Runner> runner_;
  bool prepared_ = false;
  std::vector<std::span<std::byte>> untouched_;  // what prepare() has not reached yet
  std::unique_ptr<Drafter> drafter_;             // null without a draft model
  std::deque<StreamPtr> waiting_;
  std::vector<StreamPtr> running_;  // in the order of their admission
  bool blocked_ = false;            // the first that waits did not fit; no page came free since
  Id last_id_ = 0;
  // What the last steps took: without prompts, and for each token of one more.
  double base_seconds_ = 0, prompt_token_seconds_ = 0;
  Load counts_;

  // Of the step at hand.
  std::vector<BatchItem> batch_;
  std::vector<Stream*> owners_;
  std::vector<Row> rows_;
  std::vector<Stream*> filling_;
  std::vector<Drafter::Text> texts_;
};

}  // namespace quern
