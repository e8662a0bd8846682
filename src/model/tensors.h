// The list of a model's tensors: each once, with its name in the checkpoint, its shape and its part
// in the model. Loading, saving, counting, initializing, optimizing, quantizing and the gradient
// tests all walk this list; a new family adds a naming table and nothing else.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/shape.h"
#include "model/config.h"

namespace quern {

// A tensor's place in the model. Qkv is Qwen's c_attn: rows of q, k and v one after the other.
enum class Part : uint8_t {
  Embedding,
  Norm1,
  Qkv,
  Q,
  K,
  V,
  QNorm,
  KNorm,
  AttnOut,
  Norm2,
  Up,
  Gate,
  Down,
  FinalNorm,
  LmHead
};

// LoraA and LoraB are the two factors of a matrix's low-rank update: its part says which.
enum class Role : uint8_t { Embedding, Norm, Matrix, Bias, Head, LoraA, LoraB };

struct TensorSpec {
  std::string name;    // "transformer.h.3.attn.c_attn.weight"
  std::string module;  // the name without ".weight" or ".bias"
  Shape shape;
  Part part;
  Role role;
  int64_t layer;    // -1 outside the blocks
  float scale = 1;  // LoraA, LoraB: alpha / rank

  bool decays() const noexcept { return shape.rank() >= 2; }  // weight decay on matrices only
};

// In the order of the forward pass. A tied lm_head is not listed.
std::vector<TensorSpec> tensor_specs(const Config& config);

// The factors of low-rank updates, under PEFT's names: "base_model.model.<module>.lora_A.weight",
// [rank, in], and lora_B, [out, rank]. `choose` is asked for each matrix, the head's included, in
// the order of tensor_specs(); rank 0: no update.
struct AdapterShape {
  int64_t rank = 0;
  float scale = 1;  // alpha / rank
};
std::vector<TensorSpec> adapter_specs(
    const Config& config, const std::function<AdapterShape(const TensorSpec& matrix)>& choose);

// Numbers of parameters, all of them and those that multiply activations (without the embedding).
struct ParameterCount {
  int64_t total = 0;
  int64_t embedding = 0;
  int64_t matmul = 0;  // blocks' matrices and the head
};
ParameterCount count_parameters(const Config& config);

}  // namespace quern
