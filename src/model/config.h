// What a checkpoint's config.json says, in one form for every family. What sets a family apart is
// a field here or an empty tensor in Weights, never another forward pass.
#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compute/backend.h"
#include "core/dtype.h"
#include "core/json.h"

namespace quern {

// In the order of the table in model/families.cpp.
enum class Family : uint8_t {
  Qwen,
  Qwen2,
  Qwen3,
  Llama,
  Mistral,
  Mixtral,
  Qwen2Moe,
  Qwen3Moe,
  InternLm,
  InternLm2,
  Baichuan,
  ChatGlm,
  Falcon,
  Mpt,
  Bloom,
  StarCoder,
  StarCoder2,
  Gpt2,
  GptNeoX,
  Phi,
  Phi3,
  Gemma,
  Gemma2,
  Gemma3,
  SmolLm3,
  Granite,
  Olmo2
};

std::string_view name(Family family) noexcept;  // its model_type

// How rotary angles are stretched beyond the trained length, when config.json says so for good.
// (Qwen's dynamic NTK is no such scaling: a checkpoint turns it on or off; see model/rotary.h.)
struct RopeScaling {
  enum class Type : uint8_t { None, Linear, Yarn, Llama3, Dynamic, LongRope };
  Type type = Type::None;
  double factor = 1;
  double original_context = 0;                       // trained length that the factor counts from
  double beta_fast = 32, beta_slow = 1;              // Yarn
  bool truncate = true;                              // Yarn: the ramp begins and ends at whole dims
  std::optional<double> attention_factor;            // Yarn, LongRope; absent: from the factor
  std::optional<double> mscale, mscale_all_dim;      // Yarn: their quotient is the attention factor
  double low_freq_factor = 1, high_freq_factor = 4;  // Llama3
  // LongRope: what each frequency is divided by while a sequence is no longer than
  // original_context, and beyond [rotary_dim / 2]. GGUF's rope_freqs are read as this, too, the same
  // for both.
  std::vector<float> short_factors, long_factors;

  bool operator==(const RopeScaling&) const = default;
};

enum class NormKind : uint8_t { Rms, Layer };
// Norms of queries and keys before rotation: over each head, or over all heads of a token together.
enum class QkNorm : uint8_t { None, Heads, Whole };
// How a checkpoint keeps q, k and v: three matrices, or one. Concat: all rows of q, then of k, then
// of v. Grouped: for each key/value head the rows of its query heads, of its key, of its value.
enum class QkvOrder : uint8_t { Separate, Concat, Grouped };
// Which dims a rotation turns together: j and j + half, or 2j and 2j + 1 (in the file; rows of q and
// k are put in our order, halves, when they are loaded).
enum class RopePairs : uint8_t { Halves, Adjacent };
// The angles of a layer: none, those of rope_theta and rope_scaling, or those of rope_local_theta.
enum class RopeUse : uint8_t { None, Global, Local };

// Mixture of experts (Shazeer et al. 2017; Fedus et al. 2021): each token goes through the few that
// a router likes most.
struct Experts {
  int64_t count = 0;        // 0: none
  int64_t per_token = 0;    // chosen for each token
  int64_t ffn = 0;          // of each
  bool normalized = true;   // the weights of those chosen add up to 1
  int64_t shared_ffn = 0;   // of the expert that every token goes through; 0: none
  std::vector<bool> dense;  // by layer: has an MLP instead; empty: none has
};

struct Config {
  Family family = Family::Qwen;
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t ffn = 0;                 // rows of `up` and of `gate`
  int64_t vocab = 0;               // rows of the embedding; ids are in [0, vocab)
  int64_t output_vocab = 0;        // rows of lm_head: logits per token
  int64_t trained_context = 2048;  // Qwen's seq_length: dynamic NTK and LogN act past it
  int64_t max_context = 2048;      // positions the checkpoint is declared for

  // Norms: before each branch, after it, or both.
  NormKind norm = NormKind::Rms;
  float norm_eps = 1e-6f;
  float norm_offset = 0;  // added to the norms' weights: 1 in Gemma
  bool norm_bias = false;
  bool norms_before = true, norms_after = false;
  bool embedding_norm = false;  // another behind the embedding

  // Parallel: attention and MLP both read the block's input, x + attention(n(x)) + mlp(n(x)).
  bool parallel = false;
  bool mlp_norm = true;  // the MLP has a norm of its own; a parallel one may share attention's

  // Attention.
  QkvOrder qkv_order = QkvOrder::Separate;
  bool qkv_bias = false, out_bias = false;
  float clip_qkv = 0;  // q, k and v are cut to [-clip, clip]; 0: no limit
  QkNorm qk_norm = QkNorm::None;
  float attention_scale = 0;     // of scores; 0: 1 / sqrt(head_dim)
  float score_cap = 0;           // scores become cap · tanh(score / cap); 0: no cap
  std::vector<int64_t> windows;  // attention window of each layer, 0 for none; empty: none at all
  bool dynamic_ntk = false;
  bool logn = false;

  // Positions: rotary, ALiBi, a learned table, or nothing.
  double rope_theta = 10000;
  double rope_local_theta = 0;  // of layers that use RopeUse::Local
  int64_t rotary_dim = 0;       // leading dims of each head that are rotated
  RopePairs rope_pairs = RopePairs::Halves;
  RopeScaling rope_scaling;
  std::vector<RopeUse> rope_layers;  // empty: Global in all
  double alibi_max = 0;              // ALiBi's largest exponent (Press et al. 2021); 0: none
  bool alibi_scaled = false;         // its slopes are divided by sqrt(head_dim)
  int64_t learned_positions = 0;     // rows of the table, a hard limit; 0: none

  // MLP: down(act(gate) · up), or down(act(up)) where it is not gated.
  bool gated = true;
  bool fused_gate_up = false;  // one matrix in the file: gate, then up
  Activation activation = Activation::Silu;
  bool mlp_bias = false;
  Experts experts;

  bool transposed = false;  // matrices of the blocks are kept [in, out] in the file

  // Embedding and head.
  bool tied = false;  // lm_head is the embedding
  bool head_bias = false;
  bool head_normalized = false;  // rows of lm_head are divided by their length
  float embed_scale = 1, residual_scale = 1, logit_scale = 1;
  float logit_cap = 0;  // logits become cap · tanh(logit / cap); 0: no cap

  DType dtype = DType::F32;  // what config.json says the weights are
  double initializer_range = 0.02;
  std::optional<int64_t> bos_id;
  std::vector<int64_t> eos_ids;  // any of them ends a text

  int64_t query_dim() const noexcept { return heads * head_dim; }
  int64_t kv_dim() const noexcept { return kv_heads * head_dim; }
  int64_t qkv_dim() const noexcept { return query_dim() + 2 * kv_dim(); }
  int64_t window(int64_t layer) const noexcept {
    return windows.empty() ? 0 : windows[static_cast<size_t>(layer)];
  }
  RopeUse rope(int64_t layer) const noexcept {
    return rope_layers.empty() ? RopeUse::Global : rope_layers[static_cast<size_t>(layer)];
  }
  bool has_experts(int64_t layer) const noexcept {
    return experts.count > 0 &&
           (experts.dense.empty() || !experts.dense[static_cast<size_t>(layer)]);
  }
  float score_scale() const noexcept {
    return attention_scale > 0 ? attention_scale : 1 / std::sqrt(static_cast<float>(head_dim));
  }
};

// Reads config.json of any family of the table. Throws BadInput naming the field; an unknown
// architecture's message lists those that are known. A field that is not read, and that no published
// model keeps for its books alone, is warned of by name.
Config parse_config(const Json& json);
// Of a checkpoint's folder, or from the metadata of a GGUF file.
Config load_config(const std::filesystem::path& model);

// config.json as the family's newest release writes it: what `quern init` and training save.
nlohmann::ordered_json to_json(const Config& config);

// Layer-wise window attention (Qwen technical report, 2023, section 2.3: lower layers get shorter
// windows): "4096" for all layers, a list "1024,2048,..." with one for each layer, or
// "1024:8192" growing linearly from the first layer to the last. 0 is no limit.
std::vector<int64_t> parse_windows(std::string_view text, int64_t layers);

// Shapes that `quern init` and the training presets know: qwen-7b, mini, tiny, ...
Config preset(std::string_view name);
std::vector<std::string_view> preset_names();

}  // namespace quern
