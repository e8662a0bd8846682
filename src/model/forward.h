// The forward pass: token ids in, hidden states and logits out. Prefill and decode are one pass: a
// batch carries any number of new tokens for each of its sequences.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "compute/backend.h"
#include "model/block.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/weights.h"

namespace quern {

// New tokens of one sequence. Its pages must be reserved for length() + ids.size() positions.
struct BatchItem {
  Sequence* sequence;
  std::span<const int32_t> ids;
  int64_t outputs = 1;  // hidden states wanted: of the last so many ids; 0 while a prompt goes on
  const Adapter* adapter =
      nullptr;  // of this sequence; neighbours of one adapter are computed as one
};

// Sees inner tensors as they are made, under the names of the fixtures ("embed", "block0", ...,
// "block0.ln_1", "final"). For tests and for finding where two implementations part.
using Probe = std::function<void(std::string_view name, ConstRows)>;

// Runs a model. Holds the scratch of one call, planned once: a call allocates nothing.
class Runner {
 public:
  // `max_tokens` bounds the new tokens of one call, `max_logits` the rows of logits, `adapter_rank`
  // the rank of items' adapters.
  Runner(const Network& network, int64_t max_tokens, int64_t max_logits = 16,
         int64_t adapter_rank = 0);

  // What such a runner's scratch takes. `lora_rank`: of the weights' and items' adapters.
  static uint64_t memory_bytes(const Config& config, int64_t max_tokens, int64_t max_logits,
                               int64_t lora_rank = 0) noexcept;

  enum class Want { Outputs, All };

  // Feeds every item's ids and advances its sequence. Returns the hidden states after the final
  // norm, of the items' wanted outputs in order, or of all tokens: [rows, hidden]. Valid until the
  // next call. Ids must be in [0, vocab): check_ids().
  ConstRows forward(std::span<const BatchItem> batch, KvCache& cache, Want want = Want::Outputs);

  // Logits of hidden states, at most max_logits rows: [rows, output_vocab]. Valid until the next
  // call.
  MutRows logits(ConstRows hidden);

  // The memory that calls write to.
  std::vector<std::span<std::byte>> scratch() noexcept;

  int64_t max_tokens() const noexcept { return max_tokens_; }
  int64_t max_logits() const noexcept { return max_logits_; }
  const Config& config() const noexcept { return config_; }
  void set_probe(Probe probe) { probe_ = std::move(probe); }

 private:
  int64_t plan(std::span<const BatchItem> batch);
  // One tensor of scratch: floats [rows, cols].
  struct ScratchPart {
    Tensor Runner::*tensor;
    int64_t rows, cols;
  };
  static std::vector<ScratchPart> scratch_plan(const Config& config, int64_t max_tokens,
                                               int64_t max_logits, int64_t lora_rank);
  void block(int64_t layer, KvCache& cache);
  void last_block_of_outputs(KvCache& cache);
  void finish_block(const Block& block, MutRows x);
  // A layer's angles for the tokens of the call, or with `kept` for its outputs.
  Angles angles(int64_t layer, int64_t tokens, bool kept = false) noexcept;
  AttentionRules rules(int64_t layer) const noexcept {
    return {config_.window(layer), config_.score_cap, slopes_};
  }
  // For the tokens of the call, or with `kept` for its outputs.
  BlockScratch block_scratch(int64_t tokens, bool kept = false) noexcept;
  void probe(int64_t layer, std::string_view name, ConstRows rows) const;

  Backend& run_;
  const Config& config_;
  const Weights& w_;
  int64_t max_tokens_;
  int64_t max_logits_;
  int64_t lora_rank_;
  float rotary_magnitude_;

  Tensor x_;                              // [tokens, hidden], the residual stream
  Tensor normed_;                         // [tokens, hidden]
  Tensor qkv_;                            // [tokens, qkv_dim]
  Tensor attended_;                       // [tokens, query_dim]
  Tensor gate_, up_;                      // [tokens, ffn]
  Tensor lora_;                           // [tokens, rank]
  Tensor branch_;                         // [tokens, hidden], where the model needs it
  Tensor router_;                         // [tokens, experts]
  Tensor expert_rows_;                    // [tokens, hidden], where the model has experts
  Tensor cos_, sin_;                      // [tokens, rotary_dim / 2]
  Tensor local_cos_, local_sin_;          // likewise, of layers with RopeUse::Local
  Tensor logits_;                         // [max_logits, output_vocab]
  Tensor kept_x_, kept_cos_, kept_sin_;   // the same of the outputs alone
  std::vector<float> slopes_;             // [heads], of ALiBi
  std::vector<float> local_frequencies_;  // [rotary_dim / 2], of layers with RopeUse::Local
  Routing routing_;
  std::vector<int32_t> positions_;  // [tokens], of a learned table
  std::vector<int32_t> ids_;
  std::vector<AttentionSpan> spans_;
  std::vector<float> scale_;  // [tokens], of attention scores: LogN / sqrt(head_dim)
  std::vector<int32_t> output_rows_;
  std::vector<AttentionSpan> kept_spans_;
  std::vector<float> kept_scale_;
  std::vector<AdapterRows> adapters_, kept_adapters_;
  Probe probe_;
};

// Throws BadInput naming the first id that the model has no embedding for.
void check_ids(std::span<const int32_t> ids, const Config& config, std::string_view source);

}  // namespace quern
