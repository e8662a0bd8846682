// What a block's matrices get to see: the calibration text's way through one block, matrix by
// matrix, with what stands in the block at that moment.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "compute/cpu/cpu_training_backend.h"
#include "model/block.h"
#include "model/config.h"
#include "model/weights.h"
#include "quantize/gptq_solver.h"

namespace quern {

// The residual stream of all calibration tokens, taken through the model block by block. Matrices
// of the blocks are F32. Dynamic NTK and LogN act past the trained length only, which sequences
// here do not reach.
class Calibration {
 public:
  // `tick` is called before some sequences go through something; it may throw.
  Calibration(Backend& backend, ThreadPool& pool, const Config& config, int64_t length,
              std::function<void()> tick = {});

  void embed(const Weights& weights, std::span<const int32_t> ids);
  std::vector<float>& stream() noexcept { return x_; }  // [tokens, hidden]

  // Second moments of what goes into each stage's matrices. They are called in this order; each
  // carries on with the block's matrices of the stages before.
  Hessian qkv_inputs(const Layer& layer);
  Hessian attn_out_inputs(const Layer& layer, int64_t index);
  Hessian up_gate_inputs(const Layer& layer);
  Hessian down_inputs(const Layer& layer);  // of an MLP, not of experts
  void finish(const Layer& layer);          // adds the block's last product to the stream
  Hessian head_inputs(const Norm& final_norm);

  // A whole block in place, whatever its matrices' format: what the stages above do bit by bit.
  void forward(const Layer& layer, int64_t index, std::vector<float>& stream);
  // The stream normed for the head: [tokens, hidden].
  std::vector<float> normed(std::span<const float> stream, const Norm& final_norm);

 private:
  // use(begin, end) for some whole sequences of the stream's tokens at a time.
  template <class Use>
  void for_batches(std::span<const float> stream, Use&& use) const;
  MutRows stream_rows();
  MutRows normed_batch(ConstRows stream, const Norm& norm);
  std::span<uint16_t> rounded_gated(int64_t begin, int64_t end);
  MlpBuffers mlp_buffers(int64_t tokens);
  void attend(const Layer& layer, int64_t index, ConstRows stream, MutRows attended);
  Hessian normed_inputs(const Norm& norm);
  Block block_of(const Layer& layer, int64_t tokens);
  Angles angles(int64_t index, int64_t tokens);

  Backend& run_;
  ThreadPool& pool_;
  const Config& config_;
  int64_t length_;  // of a sequence
  int64_t batch_;   // tokens that go through a matrix at once: whole sequences
  std::function<void()> tick_;
  std::vector<float> x_;         // [tokens, hidden]
  std::vector<float> attended_;  // [tokens, query_dim]
  // [tokens, ffn]: what goes into the last matrix, where products round it to bfloat16 anyway. As
  // floats it would take gigabytes, and is computed twice instead.
  std::vector<uint16_t> gated_;
  std::vector<float> gate_, up_;  // [batch, ffn]
  // [tokens, hidden]: what the MLP reads, where it reads the stream before attention adds to it.
  std::vector<float> mlp_in_;
  std::vector<float> branch_, expert_rows_;  // [batch, hidden], where the model needs them
  std::vector<float> router_;                // [batch, experts]
  Routing routing_;
  std::vector<float> slopes_;                 // [heads], of ALiBi
  std::vector<float> norm_;                   // [batch, hidden]
  std::vector<float> qkv_;                    // [batch, query_dim + 2 kv_dim]
  std::vector<float> log_sum_;                // [batch, heads]
  std::vector<float> cos_, sin_;              // [batch, rotary_dim / 2]
  std::vector<float> local_cos_, local_sin_;  // likewise, of layers with RopeUse::Local
  std::vector<int32_t> positions_;            // [batch]
};

}  // namespace quern
