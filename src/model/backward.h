// Training's pass over a batch: the loss, and the gradient of every parameter. The forward half
// runs the same blocks as model/forward.h; the backward half is its mirror image, last line first.
// Each operation has its gradient beside it in Backend: there is no tape.
//
// As in the reference's training mode: positions count from 0, dynamic NTK and LogN are off.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "compute/backend.h"
#include "model/block.h"
#include "model/config.h"
#include "model/parameters.h"

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
  // Each block's activations go back to the system once its gradients are known, so that they and
  // the gradients of a first micro-batch never exist together. Costs some 7 % of the time.
  bool release_activations = false;
  float dropout = 0;  // of the embeddings and of each block's attention output
  uint64_t dropout_seed = 0;
};

class TrainingPass {
 public:
  // Plans all memory: a call allocates nothing but what kernels keep for themselves. Throws
  // Unsupported for a config that cannot be trained.
  TrainingPass(Backend& backend, const Config& config, const TrainingOptions& options);

  // Adds the gradients of `scale` times the summed loss to `gradients`. With `scale` one over
  // count_labels() that is the gradient of the mean loss; micro-batches add up. `dropout_stream`
  // names the call (step and micro-batch) among those with one seed.
  LossSum forward_backward(const Parameters& parameters, Parameters& gradients,
                           const TrainingBatch& batch, float scale, uint64_t dropout_stream = 0);

  // The loss alone, without dropout.
  LossSum loss(const Parameters& parameters, const TrainingBatch& batch);

  // Bytes that the activations of such a pass take.
  static uint64_t activation_bytes(const Config& config, const TrainingOptions& options);

 private:
  // What a block keeps between its forward and its backward pass.
  struct Saved {
    Tensor qkv, qk_raw, attended, log_sum, x_mid, gate, up;
  };
  Saved& saved(int64_t layer) noexcept;
  BlockBuffers buffers(int64_t layer, int64_t tokens);

  void plan(const TrainingBatch& batch);
  void forward(const Weights& w, const TrainingBatch& batch, const Dropout& dropout);
  void block(const Layer& layer, int64_t index, const Dropout& dropout);
  void block_backward(const Parameters& parameters, Parameters& gradients, int64_t index,
                      const Dropout& dropout);
  void release(int64_t layer);
  TrainingAttention attention(int64_t layer) const noexcept;

  Backend& run_;
  Config config_;
  TrainingOptions options_;
  std::vector<Tensor> x_;     // [layers + 1] of [tokens, hidden]: the residual stream
  std::vector<Saved> saved_;  // [0] serves all recomputed layers
  // Scratch of one block; `norm_` also holds the final hidden states.
  Tensor norm_, swiglu_, d_x_, d_norm_, d_attended_;
  Tensor cos_, sin_;  // [tokens, rotary_dim / 2]
  std::vector<int32_t> targets_;

  // Of the call in progress.
  int64_t batch_ = 0, seq_ = 0;
  std::span<const int32_t> starts_;
};

}  // namespace quern
