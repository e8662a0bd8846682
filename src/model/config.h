// What a checkpoint's config.json says, in one form for every family. What sets a family apart is
// a field here or an empty tensor in Weights, never another forward pass.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/json.h"

namespace quern {

enum class Family : uint8_t { Qwen, Qwen2, Qwen3, Llama };

std::string_view name(Family family) noexcept;

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
  // LongRope: what each frequency is divided by, up to the original context and beyond it. GGUF's
  // rope_freqs are read as this, too, the same for both.
  std::vector<float> short_factors, long_factors;

  bool operator==(const RopeScaling&) const = default;
};

struct Config {
  Family family = Family::Qwen;
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t ffn = 0;           // rows of `up` and of `gate`
  int64_t vocab = 0;         // rows of the embedding; ids are in [0, vocab)
  int64_t output_vocab = 0;  // rows of lm_head: logits per token
  float norm_eps = 1e-6f;
  double rope_theta = 10000;
  int64_t rotary_dim = 0;  // leading dims of each head that are rotated
  RopeScaling rope_scaling;
  bool qkv_bias = false;
  bool out_bias = false;  // on the matrix behind attention
  bool mlp_bias = false;     // on up, gate and down
  bool qk_norm = false;
  bool tied = false;               // lm_head is the embedding
  int64_t trained_context = 2048;  // Qwen's seq_length: dynamic NTK and LogN act past it
  int64_t max_context = 2048;      // positions the checkpoint is declared for
  bool dynamic_ntk = false;
  bool logn = false;
  std::vector<int64_t> windows;  // attention window of each layer, 0 for none; empty: none at all
  DType dtype = DType::F32;      // what config.json says the weights are
  double initializer_range = 0.02;
  std::optional<int64_t> bos_id;
  std::vector<int64_t> eos_ids;  // any of them ends a text

  int64_t query_dim() const noexcept { return heads * head_dim; }
  int64_t kv_dim() const noexcept { return kv_heads * head_dim; }
  int64_t window(int64_t layer) const noexcept {
    return windows.empty() ? 0 : windows[static_cast<size_t>(layer)];
  }
};

// Reads config.json of Qwen (first and later release), Qwen1.5/2/2.5/3 dense, and LLaMA. Throws
// BadInput naming the field; an unknown architecture's message lists those that are known. A field
// that is not read, and that no published model keeps for its books alone, is warned of by name.
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
