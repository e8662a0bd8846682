// Training's pass over a batch: the loss, and the gradient of every parameter. The forward half
// runs the same blocks as model/forward.h; the backward half is its mirror image, last line first.
// Each operation has its gradient beside it in Backend: there is no tape.
//
// What is trained follows from the tensors that gradients are asked of: a frozen linear map computes
// the gradient of its input only, whatever format its weights have.
//
// As in the reference's training mode: positions count from 0, dynamic NTK and LogN are off.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "compute/backend.h"
#include "model/block.h"
#include "model/config.h"
#include "model/parameters.h"
#include "model/rotary.h"

namespace quern {

constexpr int32_t kIgnoredLabel = -100;

// Sequences of one length, one after the other.
struct TrainingBatch {
  int64_t batch = 0;
  int64_t seq = 0;
  std::span<const int32_t> ids;  // [batch, seq], in [0, vocab)
  // [batch, seq]; the logits at t are judged by the label at t + 1, so labels are the ids but for
  // what is kIgnoredLabel. The first of each sequence has no use.
  std::span<const int32_t> labels;
  // [batch, seq]: the first position of its sequence that each position may see (its document's
  // first), never falling along a sequence. Empty: all may see position 0.
  std::span<const int32_t> starts;

  // Labels that count: the divisor of a mean loss.
  int64_t count_labels() const noexcept;
};

// The `starts` of an attention mask [batch, seq] of zeros and ones, whose ones must lie together in
// each row: what is right of them is hidden from them by causality, what is left by the starts.
// Throws BadInput for another mask, naming `source`.
std::vector<int32_t> starts_of_mask(int64_t batch, int64_t seq, std::span<const int32_t> mask,
                                    std::string_view source);

struct TrainingOptions {
  int64_t batch = 1;  // the largest batch, and the longest sequence
  int64_t seq = 1;
  int64_t recomputed_layers = 0;  // the first so many keep their input only and run a second time
  bool own_gradients = false;     // see TrainingPass::gradients()
  // The tensors whose gradients gradients() has; empty: every tensor of the model.
  std::vector<TensorSpec> trained = {};
  // What blocks keep is rounded to bfloat16, but for the residual stream: half the memory, where
  // products round their factors anyway (Backend::rounds_products).
  bool rounded_activations = false;
  float dropout = 0;  // of the embeddings and of each block's attention output
  uint64_t dropout_seed = 0;
  float lora_dropout = 0;  // of what low-rank updates read
  // NEFTune: noise of the embeddings in training, uniform in +-alpha / sqrt(seq * hidden).
  float embedding_noise = 0;
};

class TrainingPass {
 public:
  // Plans all memory: a call allocates nothing but what kernels keep for themselves. Throws
  // Unsupported for a config that cannot be trained.
  TrainingPass(Backend& backend, const Config& config, const TrainingOptions& options);

  // Sets the gradients of `scale` times the summed loss, or adds them to what is there. With `scale`
  // one over count_labels() that is the gradient of the mean loss; micro-batches add up.
  // `dropout_stream` names the call (step and micro-batch) among those with one seed.
  LossSum forward_backward(const Weights& weights, const GradientSink& gradients,
                           const TrainingBatch& batch, float scale, uint64_t dropout_stream = 0);

  // With options.own_gradients, gradients for steps of a single batch: they lie where the
  // activations of the blocks lay whose own gradients are known by then, so that they take next to
  // no memory. They can be set only, not added to; the next forward pass overwrites them.
  GradientSink gradients() noexcept { return {*gradients_, GradientSink::Mode::Set}; }

  // The loss alone, without dropout.
  LossSum loss(const Weights& weights, const TrainingBatch& batch);

  // Bytes that such a pass takes: activations, and gradients of its own.
  static uint64_t memory_bytes(const Config& config, const TrainingOptions& options);

 private:
  // What a block keeps between its forward and its backward pass: where in block_ it begins.
  struct Saved {
    int64_t log_sum, x_mid;
    int64_t rounded;  // the following as bfloat16, side by side; -1: as they are
    int64_t qkv, qk_raw, attended, gate, up;
  };
  // What lies in block_, in this order: what recomputed layers share; of each layer its input and
  // what it keeps; the last output. And gradients, which begin so far behind that none is written
  // before what lies there is done with. Where what is kept is rounded, all layers work on what
  // recomputed layers share.
  struct Plan {
    std::vector<int64_t> x;    // [layers + 1] of [tokens, hidden]: the residual stream
    std::vector<Saved> saved;  // by layer
    int64_t inner_floats = 0;  // of `rounded` before it is
    int64_t gradients = 0;
    int64_t floats = 0;
  };
  static Plan plan_memory(const Config& config, const TrainingOptions& options);
  MutRows rows_at(int64_t begin, int64_t cols) noexcept;  // of the call's tokens
  MutRows x_of(int64_t layer) noexcept;

  const Saved& saved(int64_t layer) const noexcept;
  // The buffers of one block: see model/block.h.
  struct Buffers {
    MutRows x_in, x_mid, x_out;  // [tokens, hidden]
    QkvBuffers qkv;
    MutRows attended;  // [tokens, query_dim]
    MlpBuffers mlp;
  };
  Buffers buffers(int64_t layer);
  static Dropout of_layer(Dropout dropout, int64_t layer) noexcept;
  Angles angles(int64_t layer) noexcept;
  BlockScratch scratch() noexcept;
  LossHead head(const Weights& weights);

  void begin(const Weights& weights, const TrainingBatch& batch, uint64_t dropout_stream,
             bool training);
  void forward(const Weights& w, const TrainingBatch& batch, const Dropout& dropout, bool keep);
  std::span<float> inner(int64_t layer) noexcept;
  std::span<uint16_t> rounded(int64_t layer) noexcept;
  void block(const Layer& layer, int64_t index, const Dropout& dropout);
  void add_noise(MutRows embedded, uint64_t stream);
  // d_x (+)= the gradient through a linear map, whose own gradients go to where `sink` has them.
  void linear_backward(const Linear& linear, const Linear& sink, MutRows d_x, ConstRows d_out,
                       ConstRows x, bool accumulate);
  void norm_backward(const Norm& norm, const Norm& sink, MutRows d_x, ConstRows d_out, ConstRows x);
  // The gradient of a branch that ends in `linear` of x, from that of the block's output: d_x_, or
  // what comes out of the norm behind the branch and of the residual scale.
  ConstRows branch_gradient(const Linear& linear, ConstRows x, const Norm& after, const Norm& sink);
  ConstRows through_norm_after(const Norm& after, const Norm& sink);
  // Each leaves in d_norm_ the gradient of what the MLP, or the experts, read.
  void mlp_backward(const Layer& layer, const Layer& sink, const Buffers& b);
  void experts_backward(const Layer& layer, const Layer& sink, const Buffers& b);
  void activation_backward(const Mlp& mlp, MutRows gate, MutRows up, ConstRows d_gated);
  void gate_up_backward(const Mlp& mlp, const Mlp& sink, MutRows d_x, MutRows d_gate, MutRows d_up,
                        ConstRows x, bool accumulate);
  void qkv_backward(const Layer& layer, const Layer& sink, int64_t index, const Buffers& b);
  void embedding_backward(const Weights& weights, const Weights& sink, std::span<const int32_t> ids,
                          const Dropout& dropout);
  void block_backward(const Layer& layer, const Layer& sink, int64_t index, const Dropout& dropout);
  TrainingAttention attention(int64_t layer) const noexcept;

  Backend& run_;
  Config config_;
  TrainingOptions options_;
  Plan plan_;
  Tensor block_;
  std::optional<Parameters> gradients_;
  // Scratch of one block; `norm_` also holds the final hidden states.
  Tensor norm_, swiglu_, d_x_, d_norm_, d_attended_;
  Tensor cos_, sin_;              // [tokens, rotary_dim / 2]
  Tensor local_cos_, local_sin_;  // likewise, of layers with RopeUse::Local
  Tensor branch_, d_branch_;      // [tokens, hidden], where the model needs them
  // For models with experts: the router's outputs and their gradient [tokens, experts], rows of one
  // expert [tokens, hidden] and [tokens, ffn].
  Tensor router_, d_router_, expert_rows_, expert_out_, d_expert_, expert_gate_, expert_up_,
      expert_gated_;
  Routing routing_;
  Weight head_weight_;
  Tensor head_, d_head_;           // [vocab, hidden], of models with a normalized head
  std::vector<float> slopes_;      // [heads], of ALiBi
  std::vector<float> head_scale_;  // [hidden], of a normalized head
  std::vector<int32_t> positions_;
  Tensor dropped_;  // [tokens, widest input of a matrix], with LoRA's dropout
  Tensor lora_;     // [2, tokens, rank], grown to the weights' largest rank
  std::vector<int32_t> targets_;

  // Of the call in progress.
  int64_t batch_ = 0, seq_ = 0, rank_ = 0;
  LoraDropout lora_dropout_;
  Parameters* sink_ = nullptr;
  std::span<const int32_t> starts_;
};

}  // namespace quern
