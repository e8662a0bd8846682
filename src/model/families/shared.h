// What the readers of several families share. A family's file has all that the family adds: a reader
// and a writer of its own fields, names of tensors, and a row of the table.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>

#include "model/families.h"

namespace quern::family {

using nlohmann::ordered_json;

std::span<const FamilyRow> llama();
std::span<const FamilyRow> qwen();
std::span<const FamilyRow> internlm();
std::span<const FamilyRow> gpt();
std::span<const FamilyRow> gemma();

void read_activation(const Json& json, std::string_view key, Activation usual, Config& c);

std::string_view activation_name(const Config& c) noexcept;

// A switch that no release turns on, or off, and that would change the mathematics.
void refuse(const Json& json, std::string_view key, bool wrong);

void expect_word(const Json& json, std::string_view key,
                 std::initializer_list<std::string_view> known);

// LayerNorm, plain MLP: what descends from GPT-2.
void like_gpt(Config& c);

// One key stands for all of these in most families.
bool has_attention_bias(const Config& c) noexcept;

void all_biases(Config& c, bool present = true);

// Angles over a part of each head, as a share of it.
void read_rotary_share(const Json& json, std::string_view key, double usual, Config& c);

double rotary_share(const Config& c);

void no_rotary(Config& c);

// ALiBi has no limit of length: what the config says is the trained one.
void unlimited(Config& c, int64_t trained);

void window_everywhere(const Json& json, Config& c);

void write_window(const Config& c, ordered_json& out);

// Windows in the layers of layer_types that say so. Nothing where there is no such list.
bool windows_by_type(const Json& json, int64_t window, Config& c);

void read_llama(const Json& json, Config& c);

void write_llama(const Config& c, ordered_json& out);

void check_experts(const Json& json, const Config& c);

// ---- Names of tensors ----

inline constexpr TensorNames kLlamaNames = {
    .embedding = "model.embed_tokens",
    .blocks = "model.layers",
    .final_norm = "model.norm",
    .lm_head = "lm_head",
    .norm_1 = "input_layernorm",
    .q = "self_attn.q_proj",
    .k = "self_attn.k_proj",
    .v = "self_attn.v_proj",
    .q_norm = "self_attn.q_norm",
    .k_norm = "self_attn.k_norm",
    .attn_out = "self_attn.o_proj",
    .norm_2 = "post_attention_layernorm",
    .up = "mlp.up_proj",
    .gate = "mlp.gate_proj",
    .down = "mlp.down_proj",
    .router = "mlp.gate",
    .experts = "mlp.experts",
    .expert_up = "up_proj",
    .expert_gate = "gate_proj",
    .expert_down = "down_proj",
    .shared_up = "mlp.shared_expert.up_proj",
    .shared_gate = "mlp.shared_expert.gate_proj",
    .shared_down = "mlp.shared_expert.down_proj",
    .shared_router = "mlp.shared_expert_gate",
};

constexpr TensorNames with(TensorNames names, auto change) {
  change(names);
  return names;
}

inline constexpr TensorNames kNormsAfterNames = with(kLlamaNames, [](TensorNames& n) {
  n.norm_1_after = "post_attention_layernorm";
  n.norm_2 = "pre_feedforward_layernorm";
  n.norm_2_after = "post_feedforward_layernorm";
});

}  // namespace quern::family
