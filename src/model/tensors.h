// The list of a model's tensors: each once, with its name in the checkpoint, its shape and its part
// in the model. Loading, saving, counting, initializing, optimizing, quantizing and the gradient
// tests all walk this list; a new family adds a naming table and nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/shape.h"
#include "model/config.h"

namespace quern {

// A tensor's place in the model. Qkv: rows of q, k and v one after the other; GateUp: gate, then up.
// Parts named Expert have an index; a shared expert's matrices are Up, Gate and Down of a layer that
// has a router.
enum class Part : uint8_t {
  Embedding,
  Positions,
  EmbeddingNorm,
  Norm1,
  Qkv,
  Q,
  K,
  V,
  QNorm,
  KNorm,
  AttnOut,
  Norm1After,
  Norm2,
  Up,
  Gate,
  GateUp,
  Down,
  Router,
  ExpertUp,
  ExpertGate,
  ExpertDown,
  SharedRouter,
  Norm2After,
  FinalNorm,
  LmHead
};

// LoraA and LoraB are the two factors of a matrix's low-rank update: its part says which.
enum class Role : uint8_t { Embedding, Norm, Matrix, Bias, Head, LoraA, LoraB };

struct TensorSpec {
  std::string name;    // "transformer.h.3.attn.c_attn.weight"
  std::string module;  // the name without ".weight" or ".bias"
  Shape shape;         // in the model's order, a matrix [out, in]
  Part part;
  Role role;
  int64_t layer;       // -1 outside the blocks
  int64_t expert = 0;  // of the Expert parts
  float scale = 1;     // LoraA, LoraB: alpha / rank

  bool decays() const noexcept { return shape.rank() >= 2; }  // weight decay on matrices only
  // What a low-rank update, a quantizer or a packed form may stand for.
  bool is_linear() const noexcept { return role == Role::Matrix || role == Role::Head; }
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

// A checkpoint may keep a tensor in another order than the model computes in: rows of q, k and v by
// groups of heads, rotated dims as neighbours, matrices transposed.
Shape file_shape(const TensorSpec& spec, const Config& config);
bool in_file_order(const TensorSpec& spec, const Config& config) noexcept;
// Copies a tensor of elements of `size` bytes from one order to the other. `out` and `in` do not
// overlap.
enum class TensorOrder : uint8_t { Ours, Files };
void reorder_tensor(std::span<std::byte> out, std::span<const std::byte> in, const TensorSpec& spec,
                    const Config& config, size_t size, TensorOrder to);

// Numbers of parameters: all of them, those that multiply activations (without the embedding), and
// those of both kinds that one token meets, where a model has experts.
struct ParameterCount {
  int64_t total = 0;
  int64_t embedding = 0;
  int64_t matmul = 0;  // blocks' matrices and the head
  int64_t active = 0, active_matmul = 0;
};
ParameterCount count_parameters(const Config& config);

}  // namespace quern
