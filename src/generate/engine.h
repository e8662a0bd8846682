// Running sequences: prompts in, tokens out, any number of sequences in one batch, one forward pass
// a step. Prompts are fed in chunks beside the sequences that are already generating.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "generate/sampler.h"
#include "generate/stop.h"
#include "model/forward.h"
#include "text/tokenizer.h"

namespace quern {

enum class FinishReason { Stop, Length, Interrupted };
std::string_view name(FinishReason reason) noexcept;

struct EngineOptions {
  DType kv_type = DType::F32;  // F32, F16, BF16, or U8 for the release's 8-bit cache
  int64_t context = 0;         // positions a sequence may have; 0: the model's max_context
  int64_t chunk = 512;         // tokens of a prompt fed in one step
  ContextRules rules;          // dynamic NTK and LogN
};

struct Request {
  std::vector<TokenId> ids;  // the prompt: at least one
  SamplingOptions sampling;
  StopRules stop;
  int64_t max_new_tokens = 512;
  int64_t top_logprobs = -1;  // -1: no logprobs; 0: of the chosen token; n: of the n likeliest too
  uint64_t stream = 0;        // tells samples of one prompt apart
  bool truncate = false;      // an over-long prompt loses its beginning instead of being an error
  bool text_start = false;    // the new tokens begin a text (nothing was there before them)
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
  FinishReason reason = FinishReason::Length;
  int64_t prompt_tokens = 0;
  double prefill_seconds = 0;  // until the first token
  double decode_seconds = 0;
};

class Engine {
 public:
  // `tokenizer` may be null: then there is no text.
  Engine(Backend& backend, const Config& config, const Weights& weights, const Tokenizer* tokenizer,
         EngineOptions options);
  ~Engine();

  using OnToken = std::function<void(size_t request, const NewToken& token)>;

  // Runs all requests together. Throws BadInput, naming both numbers, when a prompt is longer than
  // the context. `cancel` is looked at every step.
  std::vector<Completion> run(const std::vector<Request>& requests, const OnToken& on_token = {},
                              const std::atomic<bool>* cancel = nullptr);

  // Like run() for one request that continues a conversation: what the prompt has in common with
  // the ids that this engine saw last is not computed again, as long as dynamic NTK's factor is the
  // same.
  Completion run_continued(const Request& request, const OnToken& on_token = {},
                           const std::atomic<bool>* cancel = nullptr);

  int64_t context() const noexcept { return options_.context; }

 private:
  struct Stream;
  std::vector<TokenId> fit(const Request& request) const;
  void ensure_capacity(int64_t tokens, int64_t sequences, int64_t longest_prompt);
  void loop(std::vector<Stream>& streams, const OnToken& on_token, const std::atomic<bool>* cancel);
  void take_token(Stream& stream, size_t index, std::span<float> logits, const OnToken& on_token);

  Backend& backend_;
  const Config& config_;
  const Weights& weights_;
  const Tokenizer* tokenizer_;
  EngineOptions options_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Runner> runner_;
  int64_t capacity_ = 0, max_sequences_ = 0;
  std::unique_ptr<Sequence> kept_;  // of run_continued
  std::vector<TokenId> kept_ids_;
};

}  // namespace quern
