// A model's weights, as the forward pass reads them. Weights borrows all memory; LoadedWeights owns
// what a checkpoint's folder provides.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compute/backend.h"
#include "compute/tensor.h"
#include "core/thread_pool.h"
#include "model/config.h"
#include "model/tensors.h"

namespace quern {

// A low-rank update of a matrix (LoRA, Hu et al. 2021): y += scale · b · (a · x).
struct LowRank {
  Weight a;         // [rank, cols]
  Weight b;         // [rows, rank]
  float scale = 1;  // alpha / rank
  int32_t id = 0;   // of the adapted matrix in its model, one for the parts of a fused one
};

// y = weight · x (+ bias) (+ low-rank update).
struct Linear {
  Weight weight;
  std::span<const float> bias;  // empty where there is none
  LowRank lora;                 // empty where there is none
};

// A norm's weight and bias [dim]; the bias empty where there is none, both where there is no norm.
struct Norm {
  std::span<const float> weight, bias;

  bool empty() const noexcept { return weight.empty(); }
};

struct Mlp {
  Linear up, gate;  // [ffn, hidden]; gate empty where the MLP is not gated
  Linear down;      // [hidden, ffn]
};

struct Layer {
  Norm norm_1, norm_1_after;  // before and after attention
  Linear q, k, v;             // [heads * head_dim, hidden], [kv_heads * head_dim, hidden]
  std::span<const float> q_norm, k_norm;  // see QkNorm
  Linear attn_out;                        // [hidden, heads * head_dim]
  Norm norm_2, norm_2_after;              // before and after the MLP
  Mlp mlp;                                // of a layer with experts: the shared one, or empty
  Linear router;                          // [experts, hidden]; empty where the layer has no experts
  Linear shared_router;                   // [1, hidden]
  std::vector<Mlp> experts;
};

struct Weights {
  Weight embedding;  // [vocab, hidden]
  Weight positions;  // [learned_positions, hidden], or empty
  Norm embedding_norm;
  std::vector<Layer> layers;
  Norm final_norm;  // [hidden]
  Linear lm_head;   // [output_vocab, hidden]; the embedding where tied

  int64_t max_lora_rank() const noexcept;
};

// A model ready to compute: what it is, its weights, and what computes. All of it is borrowed.
struct Network {
  Backend& backend;
  const Config& config;
  const Weights& weights;
};

// The linear maps that a matrix (or its bias, or its adapter) of the checkpoint feeds: one, or q, k
// and v for a fused tensor, with their rows in it. Empty for embedding and norms.
struct LinearSlice {
  Linear* linear;
  int64_t first_row;
  int64_t rows;
};
std::vector<LinearSlice> linears_of(Weights& weights, const TensorSpec& spec, const Config& config);

// Puts a tensor of the list (or of adapter_specs) where the model reads it: a matrix, or a norm or
// bias. A tied head follows the embedding. Nothing happens where the tensor is empty.
void bind_matrix(Weights& weights, const TensorSpec& spec, const Config& config,
                 const Weight& matrix);
void bind_vector(Weights& weights, const TensorSpec& spec, const Config& config,
                 std::span<const float> values);

// Where the model reads a norm's weight or bias; null for other tensors.
std::span<const float>* norm_field(Weights& weights, const TensorSpec& spec);

// Puts a Weights together from a provider of tensors: `matrix` for the specs of two dimensions,
// `vector` for norms and biases (an empty span where the checkpoint has no such bias).
struct WeightSource {
  std::function<Weight(const TensorSpec&)> matrix;
  std::function<std::span<const float>(const TensorSpec&)> vector;
};
Weights bind_weights(const Config& config, const WeightSource& source);

struct LoadOptions {
  std::vector<std::filesystem::path> adapters;  // LoRA folders in PEFT's layout, applied in order
  ThreadPool* pool = nullptr;                   // that packs matrices of few bits; none: one thread
  bool pack_cache = false;  // keep packed matrices in a file beside the model: PackedFile
  bool pack = true;         // false: GPTQ stays as it is, GGUF's blocks become float16
  bool float32 = false;     // every matrix in float32: exact, for checking; never packed
  bool strict = false;      // a tensor that the model has no use for is an error, no warning
};

// A checkpoint in a folder: config.json, safetensors (one file or shards, float or GPTQ); or a GGUF
// file. Float matrices stay mapped in the file's own format; those of four to eight bits are packed
// for the kernels (compute/packed.h), GGUF's other blocks become float16; norms and biases are
// converted to float.
class LoadedWeights {
 public:
  // Throws BadInput naming file and tensor for whatever is missing, misshapen or not finite. (Of a
  // large checkpoint only norms and biases are searched for NaN here: see check_finite.)
  static LoadedWeights load(const std::filesystem::path& folder, const Config& config,
                            const LoadOptions& options = {});
  LoadedWeights(LoadedWeights&&) noexcept;
  LoadedWeights& operator=(LoadedWeights&&) noexcept;
  ~LoadedWeights();

  const Weights& weights() const noexcept;
  uint64_t file_bytes() const noexcept;     // of all tensors in the checkpoint
  std::string description() const;          // "bf16", "GPTQ int4, groups of 128", ...
  std::vector<std::string> unused() const;  // tensors that the model has no use for

  // Reads every tensor; throws BadInput naming the first that has NaN or infinity.
  void check_finite() const;

 private:
  struct State;
  explicit LoadedWeights(std::unique_ptr<State> state);
  void report_unused(const Config& config, bool strict) const;
  std::unique_ptr<State> state_;
};

}  // namespace quern
