// GPT-2 and its descendants: StarCoder, GPT-NeoX, Falcon, MPT, BLOOM, Phi-2.

#include "core/error.h"
#include "model/families/shared.h"

namespace quern::family {
namespace {

void read_gpt2(const Json& json, Config& c) {
  like_gpt(c);
  refuse(json, "scale_attn_weights", false);
  refuse(json, "scale_attn_by_inverse_layer_idx", true);
  refuse(json, "add_cross_attention", true);
  read_activation(json, "activation_function", Activation::GeluTanh, c);
  all_biases(c);
  c.kv_heads = c.heads;
  c.qkv_order = QkvOrder::Concat;
  no_rotary(c);
  c.learned_positions = c.max_context;
  c.transposed = true;
}
void write_gpt2(const Config& c, ordered_json& out) {
  for (const char* key : {"num_key_value_heads", "head_dim"}) out.erase(key);
  out["activation_function"] = activation_name(c);
}

void read_starcoder(const Json& json, Config& c) {
  read_gpt2(json, c);
  c.kv_heads = json.boolean_or("multi_query", true) ? 1 : c.heads;
  c.qkv_order = QkvOrder::Grouped;  // with one key/value head all rows of q come first
  c.transposed = false;
}
void write_starcoder(const Config& c, ordered_json& out) {
  write_gpt2(c, out);
  out["multi_query"] = c.kv_heads == 1;
}

void read_starcoder2(const Json& json, Config& c) {
  like_gpt(c);
  expect_word(json, "norm_type", {"layer_norm"});
  expect_word(json, "mlp_type", {"default"});
  read_activation(json, "hidden_act", Activation::GeluTanh, c);
  all_biases(c, json.boolean_or("use_bias", true));
  window_everywhere(json, c);
}
void write_starcoder2(const Config& c, ordered_json& out) {
  out["hidden_act"] = activation_name(c);
  out["use_bias"] = has_attention_bias(c) || c.mlp_bias;
  write_window(c, out);
}

void read_neox(const Json& json, Config& c) {
  like_gpt(c);
  read_activation(json, "hidden_act", Activation::Gelu, c);
  c.qkv_bias = c.out_bias = json.boolean_or("attention_bias", true);
  c.mlp_bias = true;
  c.kv_heads = c.heads;
  c.qkv_order = QkvOrder::Grouped;
  c.parallel = json.boolean_or("use_parallel_residual", true);
  c.rope_theta = json.number_or("rotary_emb_base", 10000, 1, 1e12);
  read_rotary_share(json, "rotary_pct", 0.25, c);
}
void write_neox(const Config& c, ordered_json& out) {
  for (const char* key :
       {"num_key_value_heads", "head_dim", "rope_theta", "partial_rotary_factor"}) {
    out.erase(key);
  }
  out["hidden_act"] = activation_name(c);
  out["attention_bias"] = has_attention_bias(c);
  out["use_parallel_residual"] = c.parallel;
  out["rotary_emb_base"] = c.rope_theta;
  out["rotary_pct"] = rotary_share(c);
}

void read_falcon(const Json& json, Config& c) {
  like_gpt(c);
  refuse(json, "apply_residual_connection_post_layernorm", true);
  read_activation(json, "activation", Activation::Gelu, c);
  all_biases(c, json.boolean_or("bias", false));
  const auto groups = find_any(json, {"num_kv_heads", "n_head_kv"});
  const bool modern = json.boolean_or("new_decoder_architecture", json.has("n_head_kv"));
  const bool one_head = json.boolean_or("multi_query", true);
  c.kv_heads = modern && groups ? groups->integer(1, c.heads) : modern || !one_head ? c.heads : 1;
  c.qkv_order = QkvOrder::Grouped;
  c.parallel = modern || json.boolean_or("parallel_attn", true);
  // The first decoder has one norm, whatever this says.
  const int64_t norms = json.integer_or("num_ln_in_parallel_attn", 2, 1, 2);
  c.mlp_norm = !c.parallel || (modern && norms == 2);
  if (json.boolean_or("alibi", false)) {
    no_rotary(c);
    c.alibi_max = 8;
    c.alibi_scaled = true;
    unlimited(c, c.max_context);
  }
}
void write_falcon(const Config& c, ordered_json& out) {
  const bool modern = c.parallel && (c.mlp_norm || (c.kv_heads != 1 && c.kv_heads != c.heads));
  out.erase("num_key_value_heads");
  out.erase("head_dim");
  out["activation"] = activation_name(c);
  out["bias"] = has_attention_bias(c) || c.mlp_bias;
  out["new_decoder_architecture"] = modern;
  out["multi_query"] = c.kv_heads == 1;
  if (modern) {
    out["num_kv_heads"] = c.kv_heads;
    out["num_ln_in_parallel_attn"] = c.mlp_norm ? 2 : 1;
  }
  out["parallel_attn"] = c.parallel;
  out["alibi"] = c.alibi_max > 0;
  out["ffn_hidden_size"] = c.ffn;
  if (c.alibi_max > 0) out["max_position_embeddings"] = c.trained_context;
}

void read_mpt(const Json& json, Config& c) {
  like_gpt(c);
  c.norm_bias = !json.boolean_or("no_bias", false);
  all_biases(c, c.norm_bias);
  c.activation = Activation::Gelu;
  expect_word(json, "norm_type", {"low_precision_layernorm", "layernorm"});
  if (json.has("logit_scale")) {
    throw Error(Kind::Unsupported, json.at("logit_scale").where() + " is not supported");
  }
  const auto ratio = json.find("expansion_ratio");
  c.ffn =
      static_cast<int64_t>((ratio ? ratio->number(1, 64) : 4.0) * static_cast<double>(c.hidden));
  c.qkv_order = QkvOrder::Concat;
  const Json attention = json.at("attn_config");
  refuse(attention, "qk_ln", true);
  refuse(attention, "prefix_lm", true);
  refuse(attention, "alibi", false);
  expect_word(attention, "attn_type", {"multihead_attention", "grouped_query_attention"});
  attention.at("alibi");
  c.kv_heads = attention.integer_or("kv_n_heads", c.heads, 1, c.heads);
  c.alibi_max = attention.number_or("alibi_bias_max", 8, 1e-3, 1024);
  c.clip_qkv = static_cast<float>(attention.number_or("clip_qkv", 0, 0, 1e6));
  c.attention_scale = static_cast<float>(attention.number_or("softmax_scale", 0, 0, 1e6));
  no_rotary(c);
  unlimited(c, c.max_context);
}
void write_mpt(const Config& c, ordered_json& out) {
  for (const char* key : {"num_key_value_heads", "head_dim", "intermediate_size"}) out.erase(key);
  out["no_bias"] = !c.norm_bias;
  out["norm_type"] = "low_precision_layernorm";
  out["expansion_ratio"] = static_cast<double>(c.ffn) / static_cast<double>(c.hidden);
  out["max_seq_len"] = c.trained_context;
  out["attn_config"] = {{"alibi", true}, {"alibi_bias_max", c.alibi_max}};
  if (c.kv_heads != c.heads) {
    out["attn_config"]["attn_type"] = "grouped_query_attention";
    out["attn_config"]["kv_n_heads"] = c.kv_heads;
  }
  if (c.clip_qkv > 0) out["attn_config"]["clip_qkv"] = c.clip_qkv;
  if (c.attention_scale > 0) out["attn_config"]["softmax_scale"] = c.attention_scale;
}

void read_bloom(const Json& json, Config& c) {
  like_gpt(c);
  refuse(json, "apply_residual_connection_post_layernorm", true);
  c.activation = Activation::GeluTanh;
  c.embedding_norm = true;
  all_biases(c);
  c.kv_heads = c.heads;
  c.qkv_order = QkvOrder::Grouped;
  no_rotary(c);
  c.alibi_max = 8;
  unlimited(c, c.max_context);
}
void write_bloom(const Config& c, ordered_json& out) {
  for (const char* key : {"num_key_value_heads", "head_dim"}) out.erase(key);
  out["seq_length"] = c.trained_context;
  out["apply_residual_connection_post_layernorm"] = false;
}

void read_phi(const Json& json, Config& c) {
  like_gpt(c);
  refuse(json, "qk_layernorm", true);
  read_activation(json, "hidden_act", Activation::GeluTanh, c);
  all_biases(c);
  c.head_bias = true;
  c.parallel = true;
  c.mlp_norm = false;
  read_rotary_share(json, "partial_rotary_factor", 0.5, c);
}

void write_phi(const Config& c, ordered_json& out) {
  out.erase("head_dim");
  out["hidden_act"] = activation_name(c);
  out["partial_rotary_factor"] = rotary_share(c);
}

// ---- Names of tensors ----

constexpr TensorNames kGpt2Names = {
    .embedding = "transformer.wte",
    .positions = "transformer.wpe",
    .blocks = "transformer.h",
    .final_norm = "transformer.ln_f",
    .lm_head = "lm_head",
    .norm_1 = "ln_1",
    .qkv = "attn.c_attn",
    .attn_out = "attn.c_proj",
    .norm_2 = "ln_2",
    .up = "mlp.c_fc",
    .down = "mlp.c_proj",
};

constexpr TensorNames kStarCoder2Names = with(kLlamaNames, [](TensorNames& n) {
  n.up = "mlp.c_fc";
  n.down = "mlp.c_proj";
});

constexpr TensorNames kNeoXNames = {
    .embedding = "gpt_neox.embed_in",
    .blocks = "gpt_neox.layers",
    .final_norm = "gpt_neox.final_layer_norm",
    .lm_head = "embed_out",
    .norm_1 = "input_layernorm",
    .qkv = "attention.query_key_value",
    .attn_out = "attention.dense",
    .norm_2 = "post_attention_layernorm",
    .up = "mlp.dense_h_to_4h",
    .down = "mlp.dense_4h_to_h",
};

constexpr TensorNames kBloomNames = {
    .embedding = "transformer.word_embeddings",
    .embedding_norm = "transformer.word_embeddings_layernorm",
    .blocks = "transformer.h",
    .final_norm = "transformer.ln_f",
    .lm_head = "lm_head",
    .norm_1 = "input_layernorm",
    .qkv = "self_attention.query_key_value",
    .attn_out = "self_attention.dense",
    .norm_2 = "post_attention_layernorm",
    .up = "mlp.dense_h_to_4h",
    .down = "mlp.dense_4h_to_h",
};

constexpr TensorNames kFalconNames = with(kBloomNames, [](TensorNames& n) {
  n.norm_1_parallel = "ln_attn";
  n.norm_2_parallel = "ln_mlp";
});

constexpr TensorNames kMptNames = {
    .embedding = "transformer.wte",
    .blocks = "transformer.blocks",
    .final_norm = "transformer.norm_f",
    .lm_head = "lm_head",
    .norm_1 = "norm_1",
    .qkv = "attn.Wqkv",
    .attn_out = "attn.out_proj",
    .norm_2 = "norm_2",
    .up = "ffn.up_proj",
    .down = "ffn.down_proj",
};

constexpr TensorNames kPhiNames = with(kLlamaNames, [](TensorNames& n) {
  n.final_norm = "model.final_layernorm";
  n.attn_out = "self_attn.dense";
  n.up = "mlp.fc1";
  n.down = "mlp.fc2";
});

// ---- Keys of config.json beyond the usual ----

constexpr std::string_view kGpt2Keys[] = {"activation_function", "add_cross_attention",
                                          "multi_query", "scale_attn_by_inverse_layer_idx",
                                          "scale_attn_weights"};
constexpr std::string_view kStarCoder2Keys[] = {"hidden_act", "mlp_type", "norm_type",
                                                "sliding_window", "use_bias"};
constexpr std::string_view kNeoXKeys[] = {"attention_bias", "hidden_act", "rotary_emb_base",
                                          "rotary_pct", "use_parallel_residual"};
constexpr std::string_view kFalconKeys[] = {"activation",
                                            "alibi",
                                            "apply_residual_connection_post_layernorm",
                                            "bias",
                                            "multi_query",
                                            "n_head_kv",
                                            "new_decoder_architecture",
                                            "num_kv_heads",
                                            "num_ln_in_parallel_attn",
                                            "parallel_attn",
                                            "rope_theta"};  // also where there is ALiBi
// MPT's learned_pos_emb is ignored where there is ALiBi.
constexpr std::string_view kMptKeys[] = {"attn_config", "expansion_ratio", "learned_pos_emb",
                                         "logit_scale", "no_bias",         "norm_type"};
constexpr std::string_view kBloomKeys[] = {"apply_residual_connection_post_layernorm"};
constexpr std::string_view kPhiKeys[] = {"hidden_act", "qk_layernorm"};

// ---- Rows ----

constexpr ConfigNames kGptKeys = {.hidden = "n_embd",
                                  .layers = "n_layer",
                                  .heads = "n_head",
                                  .ffn = "n_inner",
                                  .eps = "layer_norm_epsilon",
                                  .context = "n_positions"};

const FamilyRow kRows[] = {{Family::Gpt2,
                            "gpt2",
                            {},
                            {"GPT2LMHeadModel"},
                            kGptKeys,
                            kGpt2Names,
                            true,
                            read_gpt2,
                            write_gpt2,
                            kGpt2Keys},
                           {Family::StarCoder,
                            "gpt_bigcode",
                            {},
                            {"GPTBigCodeForCausalLM"},
                            kGptKeys,
                            kGpt2Names,
                            true,
                            read_starcoder,
                            write_starcoder,
                            kGpt2Keys},
                           {Family::StarCoder2,
                            "starcoder2",
                            {},
                            {"Starcoder2ForCausalLM"},
                            {.eps = "norm_epsilon"},
                            kStarCoder2Names,
                            true,
                            read_starcoder2,
                            write_starcoder2,
                            kStarCoder2Keys},
                           {Family::GptNeoX,
                            "gpt_neox",
                            {},
                            {"GPTNeoXForCausalLM"},
                            {.eps = "layer_norm_eps"},
                            kNeoXNames,
                            false,
                            read_neox,
                            write_neox,
                            kNeoXKeys},
                           {Family::Falcon,
                            "falcon",
                            {"RefinedWeb", "RefinedWebModel"},
                            {"FalconForCausalLM", "RWForCausalLM"},
                            {.ffn = "ffn_hidden_size", .eps = "layer_norm_epsilon"},
                            kFalconNames,
                            true,
                            read_falcon,
                            write_falcon,
                            kFalconKeys},
                           {Family::Mpt,
                            "mpt",
                            {},
                            {"MPTForCausalLM", "MptForCausalLM"},
                            {.hidden = "d_model",
                             .layers = "n_layers",
                             .heads = "n_heads",
                             .eps = "layer_norm_epsilon",
                             .context = "max_seq_len"},
                            kMptNames,
                            true,
                            read_mpt,
                            write_mpt,
                            kMptKeys},
                           {Family::Bloom,
                            "bloom",
                            {},
                            {"BloomForCausalLM", "BloomModel"},
                            {.layers = "n_layer",
                             .heads = "n_head",
                             .ffn = "n_inner",
                             .eps = "layer_norm_epsilon",
                             .context = "seq_length"},
                            kBloomNames,
                            true,
                            read_bloom,
                            write_bloom,
                            kBloomKeys},
                           {Family::Phi,
                            "phi",
                            {},
                            {"PhiForCausalLM"},
                            {.eps = "layer_norm_eps"},
                            kPhiNames,
                            false,
                            read_phi,
                            write_phi,
                            kPhiKeys}};

}  // namespace

std::span<const FamilyRow> gpt() { return kRows; }

}  // namespace quern::family
