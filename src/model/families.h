// The table of model families: for each its names in config.json, what its config says beyond the
// usual, and the names of its tensors. There is nothing else that a family adds.
#pragma once

#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string_view>

#include "core/json.h"
#include "model/config.h"

namespace quern {

// Names of a model's modules; those of a block stand inside "<blocks>.<layer>.". Empty where the
// family has none. The parallel ones are those of a block whose two branches have a norm each, where
// they are called otherwise.
struct TensorNames {
  std::string_view embedding, positions, embedding_norm, blocks, final_norm, lm_head;
  std::string_view norm_1, norm_1_parallel, qkv, q, k, v, q_norm, k_norm, attn_out, norm_1_after;
  std::string_view norm_2, norm_2_parallel, up, gate, gate_up, down, norm_2_after;
  // Experts: their modules stand inside "<experts>.<index>.".
  std::string_view router, experts, expert_up, expert_gate, expert_down;
  std::string_view shared_up, shared_gate, shared_down, shared_router;
};

// Names of the usual fields in config.json; the first one is written, and each is read under any of
// the names that families have for it.
struct ConfigNames {
  std::string_view hidden = "hidden_size";
  std::string_view layers = "num_hidden_layers";
  std::string_view heads = "num_attention_heads";
  std::string_view kv_heads = "num_key_value_heads";
  std::string_view ffn = "intermediate_size";
  std::string_view eps = "rms_norm_eps";
  std::string_view context = "max_position_embeddings";
  std::string_view vocab = "vocab_size";
};

struct FamilyRow {
  Family family;
  std::string_view type;                                  // model_type
  std::initializer_list<std::string_view> other_types;    // of older files
  std::initializer_list<std::string_view> architectures;  // the first one is written
  ConfigNames keys;
  TensorNames names;
  bool ties;  // lm_head is the embedding where the config does not say
  // The family's own fields: reading them comes after the usual ones.
  void (*read)(const Json& json, Config& config);
  void (*write)(const Config& config, nlohmann::ordered_json& json);
  // Keys that `read` reads, or that say what holds anyway; so they are not warned of.
  std::span<const std::string_view> reads = {};
};

std::span<const FamilyRow> families() noexcept;
const FamilyRow& row_of(Family family) noexcept;

// Whether rotary settings stand under the keys of model/config_rope.h. Models without rotary angles
// have none, and the first Qwen and ChatGLM have keys of their own.
bool has_usual_rope(const Config& config) noexcept;

// The first of some members that is there, or nothing.
std::optional<Json> find_any(const Json& json, std::initializer_list<std::string_view> names);

// Limits no real model comes near; past them a number is a mistake or an attack.
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxDim = int64_t{1} << 22;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxContext = int64_t{1} << 31;
constexpr int64_t kMaxExperts = 4096;

}  // namespace quern
