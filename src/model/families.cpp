#include "model/families.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace quern {
namespace {

using nlohmann::ordered_json;

// ---- What several families share ----

struct ActivationRow {
  std::string_view name;
  Activation activation;
};
constexpr ActivationRow kActivations[] = {
    {"silu", Activation::Silu},         {"swish", Activation::Silu},
    {"gelu", Activation::Gelu},         {"gelu_pytorch_tanh", Activation::GeluTanh},
    {"gelu_new", Activation::GeluTanh}, {"gelu_fast", Activation::GeluTanh},
};

void read_activation(const Json& json, std::string_view key, Activation usual, Config& c) {
  c.activation = usual;
  const auto value = json.find(key);
  if (!value) return;
  for (const ActivationRow& row : kActivations) {
    if (row.name != value->string()) continue;
    c.activation = row.activation;
    return;
  }
  value->fail(fmt::format("is '{}', expected silu, gelu, gelu_new, gelu_fast or gelu_pytorch_tanh",
                          printable(value->string(), 40)));
}

std::string_view activation_name(const Config& c) noexcept {
  for (const ActivationRow& row : kActivations) {
    if (row.activation == c.activation) return row.name;
  }
  return {};
}

// A switch that no release turns on, or off, and that would change the mathematics.
void refuse(const Json& json, std::string_view key, bool wrong) {
  const auto value = json.find(key);
  if (!value || value->boolean() != wrong) return;
  throw Error(Kind::Unsupported,
              fmt::format("{} is {}, which is not supported", value->where(), wrong),
              "no published model of this family has it so");
}

void expect_word(const Json& json, std::string_view key,
                 std::initializer_list<std::string_view> known) {
  const auto value = json.find(key);
  if (!value || std::ranges::find(known, value->string()) != known.end()) return;
  value->fail(fmt::format("is '{}', expected {}", printable(value->string(), 40), *known.begin()));
}

// LayerNorm, plain MLP: what descends from GPT-2.
void like_gpt(Config& c) {
  c.norm = NormKind::Layer;
  c.norm_bias = true;
  c.gated = false;
}

// One key stands for all of these in most families.
bool has_attention_bias(const Config& c) noexcept { return c.qkv_bias || c.out_bias; }

void all_biases(Config& c, bool present = true) { c.qkv_bias = c.out_bias = c.mlp_bias = present; }

// Angles over a part of each head, as a share of it.
void read_rotary_share(const Json& json, std::string_view key, double usual, Config& c) {
  const double share = json.number_or(key, usual, 0, 1);
  c.rotary_dim = static_cast<int64_t>(static_cast<double>(c.head_dim) * share);
}
double rotary_share(const Config& c) {
  return static_cast<double>(c.rotary_dim) / static_cast<double>(c.head_dim);
}

void no_rotary(Config& c) { c.rotary_dim = 0; }

// ALiBi has no limit of length: what the config says is the trained one.
void unlimited(Config& c, int64_t trained) {
  c.trained_context = trained;
  c.max_context = std::max<int64_t>(4 * trained, 2048);
}

void window_everywhere(const Json& json, Config& c) {
  const auto window = json.find("sliding_window");
  if (window) c.windows.assign(static_cast<size_t>(c.layers), window->integer(1, kMaxContext));
}
void write_window(const Config& c, ordered_json& out) {
  out["sliding_window"] = c.windows.empty() ? ordered_json() : ordered_json(c.windows[0]);
}

// Windows in the layers of layer_types that say so. Nothing where there is no such list.
bool windows_by_type(const Json& json, int64_t window, Config& c) {
  const auto types = json.find("layer_types");
  if (!types) return false;
  if (static_cast<int64_t>(types->size()) != c.layers) {
    types->fail(fmt::format("has {} items, expected one for each of the {} layers", types->size(),
                            c.layers));
  }
  c.windows.assign(static_cast<size_t>(c.layers), 0);
  for (size_t i = 0; i < types->size(); ++i) {
    const std::string& type = (*types)[i].string();
    if (type == "sliding_attention") {
      c.windows[i] = window;
    } else if (type != "full_attention") {
      (*types)[i].fail(fmt::format("is '{}', expected full_attention or sliding_attention",
                                   printable(type, 40)));
    }
  }
  return true;
}

// ---- LLaMA and what is almost LLaMA ----

void read_llama(const Json& json, Config& c) {
  read_activation(json, "hidden_act", Activation::Silu, c);
  c.qkv_bias = c.out_bias = json.boolean_or("attention_bias", false);
  c.mlp_bias = json.boolean_or("mlp_bias", false);
  c.dynamic_ntk = json.boolean_or("use_dynamic_ntk", false);
  c.logn = json.boolean_or("use_logn_attn", false);
}
void write_llama(const Config& c, ordered_json& out) {
  out["hidden_act"] = activation_name(c);
  if (has_attention_bias(c)) out["attention_bias"] = true;
  if (c.mlp_bias) out["mlp_bias"] = true;
  if (c.dynamic_ntk) out["use_dynamic_ntk"] = true;
  if (c.logn) out["use_logn_attn"] = true;
}

void read_qwen_windows(const Json& json, Config& c) {
  if (!json.boolean_or("use_sliding_window", false) || !json.has("sliding_window")) return;
  const int64_t window = json.at("sliding_window").integer(1, kMaxContext);
  if (windows_by_type(json, window, c)) return;
  const int64_t first = json.integer_or("max_window_layers", 28, 0, kMaxLayers);
  c.windows.assign(static_cast<size_t>(c.layers), 0);
  for (int64_t layer = first; layer < c.layers; ++layer) {
    c.windows[static_cast<size_t>(layer)] = window;
  }
}

void read_qwen2(const Json& json, Config& c) {
  read_llama(json, c);
  c.qkv_bias = json.boolean_or("qkv_bias", true);
  c.out_bias = c.mlp_bias = false;
  read_qwen_windows(json, c);
}
void write_qwen2(const Config& c, ordered_json& out) {
  write_llama(c, out);
  out.erase("attention_bias");
  if (!c.qkv_bias) out["qkv_bias"] = false;
}

void read_qwen3(const Json& json, Config& c) {
  if (!json.has("head_dim") && c.family == Family::Qwen3) c.head_dim = c.rotary_dim = 128;
  read_llama(json, c);
  c.qk_norm = QkNorm::Heads;
  read_qwen_windows(json, c);
}

void read_mistral(const Json& json, Config& c) {
  read_llama(json, c);
  window_everywhere(json, c);
}
void write_mistral(const Config& c, ordered_json& out) {
  write_llama(c, out);
  write_window(c, out);
}

// ---- Experts ----

void check_experts(const Json& json, const Config& c) {
  if (c.experts.per_token <= c.experts.count) return;
  json.fail(fmt::format("chooses {} experts for each token, but has {}", c.experts.per_token,
                        c.experts.count));
}

void read_mixtral(const Json& json, Config& c) {
  read_mistral(json, c);
  c.experts.count = json.at("num_local_experts").integer(1, kMaxExperts);
  c.experts.per_token = json.integer_or("num_experts_per_tok", 2, 1, kMaxExperts);
  c.experts.ffn = c.ffn;
  check_experts(json, c);
}
void write_mixtral(const Config& c, ordered_json& out) {
  write_mistral(c, out);
  out["num_local_experts"] = c.experts.count;
  out["num_experts_per_tok"] = c.experts.per_token;
}

void read_qwen_experts(const Json& json, Config& c) {
  Experts& e = c.experts;
  const auto count = find_any(json, {"num_experts", "num_local_experts"});
  e.count = (count ? *count : json.at("num_experts")).integer(1, kMaxExperts);
  e.per_token = json.at("num_experts_per_tok").integer(1, kMaxExperts);
  e.ffn = json.at("moe_intermediate_size").integer(1, kMaxDim);
  e.normalized = json.boolean_or("norm_topk_prob", false);
  const int64_t step = json.integer_or("decoder_sparse_step", 1, 1, kMaxLayers);
  e.dense.assign(static_cast<size_t>(c.layers), false);
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    e.dense[static_cast<size_t>(layer)] = (layer + 1) % step != 0;
  }
  if (const auto only = json.find("mlp_only_layers")) {
    for (const Json& item : only->items()) {
      e.dense[static_cast<size_t>(item.integer(0, c.layers - 1))] = true;
    }
  }
  check_experts(json, c);
}
void write_qwen_experts(const Config& c, ordered_json& out) {
  const Experts& e = c.experts;
  out["num_experts"] = e.count;
  out["num_experts_per_tok"] = e.per_token;
  out["moe_intermediate_size"] = e.ffn;
  out["norm_topk_prob"] = e.normalized;
  out["decoder_sparse_step"] = 1;
  out["mlp_only_layers"] = ordered_json::array();
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    if (!c.has_experts(layer)) out["mlp_only_layers"].push_back(layer);
  }
}

void read_qwen2_moe(const Json& json, Config& c) {
  read_qwen2(json, c);
  read_qwen_experts(json, c);
  c.experts.shared_ffn = json.at("shared_expert_intermediate_size").integer(0, kMaxDim);
}
void write_qwen2_moe(const Config& c, ordered_json& out) {
  write_qwen2(c, out);
  write_qwen_experts(c, out);
  out["shared_expert_intermediate_size"] = c.experts.shared_ffn;
}
void read_qwen3_moe(const Json& json, Config& c) {
  read_qwen3(json, c);
  read_qwen_experts(json, c);
}
void write_qwen3_moe(const Config& c, ordered_json& out) {
  write_llama(c, out);
  write_qwen_experts(c, out);
}

// ---- Qwen's first release, with the old names and the new ones ----

void read_qwen(const Json& json, Config& c) {
  expect_word(json, "activation", {"swiglu"});
  expect_word(json, "pos_emb", {"rotary"});
  c.kv_heads = c.heads;
  c.head_dim = json.integer_or("kv_channels", c.hidden / c.heads, 1, kMaxDim);
  if (c.hidden != c.heads * c.head_dim) {
    json.fail(fmt::format("hidden_size is {}, expected {} heads x {} kv_channels = {}", c.hidden,
                          c.heads, c.head_dim, c.heads * c.head_dim));
  }
  if (c.ffn % 2 != 0) {
    json.fail(fmt::format("intermediate_size is {}, expected an even number", c.ffn));
  }
  c.ffn /= 2;  // one half each for w1 and w2
  c.vocab = json.integer_or("padded_vocab_size", c.output_vocab, 1, kMaxVocab);
  c.rope_theta = json.number_or("rotary_emb_base", 10000, 1, 1e12);
  read_rotary_share(json, "rotary_pct", 1, c);
  c.qkv_order = QkvOrder::Concat;
  c.qkv_bias = true;
  c.out_bias = c.mlp_bias = !json.boolean_or("no_bias", true);
  c.trained_context = json.integer_or("seq_length", 2048, 2, kMaxContext);
  const auto positions = find_any(json, {"max_position_embeddings", "n_positions"});
  // The first release's n_positions is the trained length and no limit: NTK goes beyond it.
  c.max_context = std::max(positions ? positions->integer(1, kMaxContext) : c.trained_context,
                           c.trained_context);
  c.dynamic_ntk = json.boolean_or("use_dynamic_ntk", false);
  c.logn = json.boolean_or("use_logn_attn", false);
}
void write_qwen(const Config& c, ordered_json& out) {
  out["intermediate_size"] = 2 * c.ffn;
  out["vocab_size"] = c.output_vocab;
  out.erase("num_key_value_heads");
  out.erase("head_dim");
  out["kv_channels"] = c.head_dim;
  out["rotary_emb_base"] = c.rope_theta;
  out["rotary_pct"] = rotary_share(c);
  out["no_bias"] = !c.out_bias;
  out["seq_length"] = c.trained_context;
  out["use_dynamic_ntk"] = c.dynamic_ntk;
  out["use_logn_attn"] = c.logn;
  out["scale_attn_weights"] = true;
  out["tokenizer_class"] = "QWenTokenizer";
  if (c.vocab != c.output_vocab) out["padded_vocab_size"] = c.vocab;
}

// ---- InternLM, Baichuan, ChatGLM ----

void read_internlm(const Json& json, Config& c) {
  read_activation(json, "hidden_act", Activation::Silu, c);
  c.qkv_bias = c.out_bias = json.boolean_or("bias", true);
  const auto rotary = json.find("rotary");  // the first release's form of rope_theta, rope_scaling
  if (!rotary) return;
  c.rope_theta = rotary->number_or("base", 10000, 1, 1e12);
  expect_word(*rotary, "type", {"origin", "dynamic"});
  if (rotary->string_or("type", "origin") == "dynamic") {
    c.rope_scaling.type = RopeScaling::Type::Dynamic;
    c.rope_scaling.factor = rotary->number_or("scaling_factor", 1, 1, 1e6);
    c.rope_scaling.original_context = static_cast<double>(c.max_context);
  }
}
void write_internlm(const Config& c, ordered_json& out) {
  out["hidden_act"] = activation_name(c);
  out["bias"] = has_attention_bias(c);
  if (c.family != Family::InternLm) return;
  const bool dynamic = c.rope_scaling.type == RopeScaling::Type::Dynamic;
  out["rotary"] = {{"base", c.rope_theta}, {"type", dynamic ? "dynamic" : "origin"}};
  out.erase("rope_theta");
  if (!dynamic) return;
  out["rotary"]["scaling_factor"] = c.rope_scaling.factor;
  out.erase("rope_scaling");
}
void read_internlm2(const Json& json, Config& c) {
  read_activation(json, "hidden_act", Activation::Silu, c);
  c.qkv_bias = c.out_bias = json.boolean_or("bias", true);
  c.qkv_order = QkvOrder::Grouped;
}

void read_baichuan(const Json& json, Config& c) {
  read_activation(json, "hidden_act", Activation::Silu, c);
  c.qkv_order = QkvOrder::Concat;
  if (!json.has("max_position_embeddings")) {  // 13B
    no_rotary(c);
    c.alibi_max = 8;
    unlimited(c, json.integer_or("model_max_length", 4096, 1, kMaxContext));
  }
  c.head_normalized = json.has("z_loss_weight") || c.vocab == 125696;
}
void write_baichuan(const Config& c, ordered_json& out) {
  out["hidden_act"] = activation_name(c);
  if (c.alibi_max > 0) {
    out.erase("max_position_embeddings");
    out["model_max_length"] = c.trained_context;
  }
  if (c.head_normalized) out["z_loss_weight"] = 0;
}

void read_chatglm(const Json& json, Config& c) {
  refuse(json, "apply_residual_connection_post_layernorm", true);
  refuse(json, "rmsnorm", false);
  refuse(json, "post_layer_norm", false);
  refuse(json, "original_rope", false);
  c.kv_heads = json.boolean_or("multi_query_attention", false)
                   ? json.at("multi_query_group_num").integer(1, c.heads)
                   : c.heads;
  c.head_dim = json.integer_or("kv_channels", c.head_dim, 1, kMaxDim);
  c.rotary_dim = c.head_dim / 2;
  c.rope_pairs = RopePairs::Adjacent;
  c.rope_theta = 10000 * json.number_or("rope_ratio", 1, 1e-3, 1e9);
  c.qkv_order = QkvOrder::Concat;
  c.out_bias = c.mlp_bias = json.boolean_or("add_bias_linear", false);
  c.qkv_bias = c.out_bias || json.boolean_or("add_qkv_bias", false);
  c.fused_gate_up = true;
}
void write_chatglm(const Config& c, ordered_json& out) {
  out.erase("num_key_value_heads");
  out.erase("head_dim");
  out["kv_channels"] = c.head_dim;
  out["multi_query_attention"] = c.kv_heads != c.heads;
  out["multi_query_group_num"] = c.kv_heads;
  out["rope_ratio"] = c.rope_theta / 10000;
  out["add_bias_linear"] = c.out_bias;
  out["add_qkv_bias"] = c.qkv_bias;
  out["rmsnorm"] = out["post_layer_norm"] = out["original_rope"] = true;
  out["apply_residual_connection_post_layernorm"] = false;
}

// ---- Falcon, MPT, BLOOM ----

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

// ---- GPT-2 and its descendants ----

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

// ---- Phi ----

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

void read_phi3(const Json& json, Config& c) {
  read_activation(json, "hidden_act", Activation::Silu, c);
  c.qkv_bias = c.out_bias = json.boolean_or("attention_bias", false);
  c.qkv_order = QkvOrder::Concat;
  c.fused_gate_up = true;
  window_everywhere(json, c);
}
void write_phi3(const Config& c, ordered_json& out) {
  out.erase("head_dim");
  out["hidden_act"] = activation_name(c);
  if (has_attention_bias(c)) out["attention_bias"] = true;
  if (c.rope_scaling.type == RopeScaling::Type::LongRope) {
    out["original_max_position_embeddings"] = static_cast<int64_t>(c.rope_scaling.original_context);
  }
  write_window(c, out);
}

// ---- Gemma ----

void read_gemma(const Json& json, Config& c) {
  if (!json.has("head_dim")) c.head_dim = c.rotary_dim = 256;
  c.qkv_bias = c.out_bias = json.boolean_or("attention_bias", false);
  c.activation = Activation::GeluTanh;  // whatever hidden_act says
  c.norm_offset = 1;
  c.embed_scale = std::sqrt(static_cast<float>(c.hidden));
}
void write_gemma(const Config& c, ordered_json& out) {
  out["hidden_activation"] = "gelu_pytorch_tanh";
  if (has_attention_bias(c)) out["attention_bias"] = true;
}

// A cap that is on with its usual size unless the config turns it off by null.
float cap_of(const Json& json, const char* key, double usual) {
  if (!json.raw().contains(key)) return static_cast<float>(usual);
  return static_cast<float>(json.number_or(key, 0, 0, 1e6));
}
ordered_json cap_json(float cap) { return cap > 0 ? ordered_json(cap) : ordered_json(); }

void read_gemma2(const Json& json, Config& c) {
  read_gemma(json, c);
  c.norms_after = true;
  c.attention_scale =
      static_cast<float>(1 / std::sqrt(json.number_or("query_pre_attn_scalar", 256, 1e-3, 1e9)));
  c.score_cap = cap_of(json, "attn_logit_softcapping", 50);
  c.logit_cap = cap_of(json, "final_logit_softcapping", 30);
  const int64_t window = json.integer_or("sliding_window", 4096, 1, kMaxContext);
  if (windows_by_type(json, window, c)) return;
  c.windows.assign(static_cast<size_t>(c.layers), 0);
  for (size_t layer = 0; layer < c.windows.size(); layer += 2) c.windows[layer] = window;
}
void write_gemma2(const Config& c, ordered_json& out) {
  write_gemma(c, out);
  out["query_pre_attn_scalar"] = 1 / (double{c.score_scale()} * c.score_scale());
  out["attn_logit_softcapping"] = cap_json(c.score_cap);
  out["final_logit_softcapping"] = cap_json(c.logit_cap);
  for (const int64_t window : c.windows) {
    out["layer_types"].push_back(window > 0 ? "sliding_attention" : "full_attention");
    if (window > 0) out["sliding_window"] = window;
  }
}

void read_gemma3(const Json& json, Config& c) {
  read_gemma(json, c);
  c.norms_after = true;
  c.qk_norm = QkNorm::Heads;
  c.attention_scale =
      static_cast<float>(1 / std::sqrt(json.number_or("query_pre_attn_scalar", 256, 1e-3, 1e9)));
  c.score_cap = cap_of(json, "attn_logit_softcapping", 0);
  c.logit_cap = cap_of(json, "final_logit_softcapping", 0);
  c.rope_theta = 1e6;  // where the config does not say
  c.rope_local_theta = json.number_or("rope_local_base_freq", 10000, 1, 1e12);
  const int64_t window = json.integer_or("sliding_window", 4096, 1, kMaxContext);
  if (!windows_by_type(json, window, c)) {
    const auto pattern = find_any(json, {"sliding_window_pattern", "_sliding_window_pattern"});
    const int64_t every = pattern ? pattern->integer(1, kMaxLayers) : 6;
    for (int64_t i = 0; i < c.layers; ++i) c.windows.push_back((i + 1) % every == 0 ? 0 : window);
  }
  for (const int64_t own : c.windows) {
    c.rope_layers.push_back(own > 0 ? RopeUse::Local : RopeUse::Global);
  }
}
void write_gemma3(const Config& c, ordered_json& out) {
  write_gemma2(c, out);
  out["rope_local_base_freq"] = c.rope_local_theta;
}

// ---- SmolLM3, Granite, OLMo 2 ----

void read_smollm3(const Json& json, Config& c) {
  read_llama(json, c);
  if (const auto list = json.find("no_rope_layers")) {  // 1: has rotary positions
    if (static_cast<int64_t>(list->size()) != c.layers) {
      list->fail(fmt::format("has {} items, expected one for each of the {} layers", list->size(),
                             c.layers));
    }
    for (const Json& item : list->items()) {
      c.rope_layers.push_back(item.integer(0, 1) != 0 ? RopeUse::Global : RopeUse::None);
    }
  } else {
    const int64_t every = json.integer_or("no_rope_layer_interval", 4, 1, kMaxLayers);
    for (int64_t i = 0; i < c.layers; ++i) {
      c.rope_layers.push_back((i + 1) % every != 0 ? RopeUse::Global : RopeUse::None);
    }
  }
  if (!json.boolean_or("use_sliding_window", false) || !json.has("sliding_window")) return;
  const int64_t window = json.at("sliding_window").integer(1, kMaxContext);
  if (windows_by_type(json, window, c)) return;
  for (const RopeUse use : c.rope_layers) c.windows.push_back(use == RopeUse::None ? window : 0);
}
void write_smollm3(const Config& c, ordered_json& out) {
  write_llama(c, out);
  for (const RopeUse use : c.rope_layers) {
    out["no_rope_layers"].push_back(use == RopeUse::None ? 0 : 1);
  }
}

void read_granite(const Json& json, Config& c) {
  read_llama(json, c);
  c.embed_scale = static_cast<float>(json.number_or("embedding_multiplier", 1, 1e-6, 1e6));
  c.residual_scale = static_cast<float>(json.number_or("residual_multiplier", 1, 1e-6, 1e6));
  c.attention_scale = static_cast<float>(json.number_or("attention_multiplier", 1, 1e-6, 1e6));
  c.logit_scale = static_cast<float>(1 / json.number_or("logits_scaling", 1, 1e-6, 1e6));
}
void write_granite(const Config& c, ordered_json& out) {
  write_llama(c, out);
  out["embedding_multiplier"] = c.embed_scale;
  out["residual_multiplier"] = c.residual_scale;
  out["attention_multiplier"] = c.score_scale();
  out["logits_scaling"] = 1 / c.logit_scale;
}

void read_olmo2(const Json& json, Config& c) {
  read_llama(json, c);
  c.norms_before = false;
  c.norms_after = true;
  c.qk_norm = QkNorm::Whole;
}

// ---- Names of tensors ----

constexpr TensorNames kLlamaNames = {
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

constexpr TensorNames kQwenNames = {
    .embedding = "transformer.wte",
    .blocks = "transformer.h",
    .final_norm = "transformer.ln_f",
    .lm_head = "lm_head",
    .norm_1 = "ln_1",
    .qkv = "attn.c_attn",
    .attn_out = "attn.c_proj",
    .norm_2 = "ln_2",
    .up = "mlp.w1",
    .gate = "mlp.w2",  // the gate is the second: c_proj(w1(x) * silu(w2(x)))
    .down = "mlp.c_proj",
};

constexpr TensorNames kMixtralNames = with(kLlamaNames, [](TensorNames& n) {
  n.router = "block_sparse_moe.gate";
  n.experts = "block_sparse_moe.experts";
  n.expert_up = "w3";
  n.expert_gate = "w1";
  n.expert_down = "w2";
});

constexpr TensorNames kInternLm2Names = {
    .embedding = "model.tok_embeddings",
    .blocks = "model.layers",
    .final_norm = "model.norm",
    .lm_head = "output",
    .norm_1 = "attention_norm",
    .qkv = "attention.wqkv",
    .attn_out = "attention.wo",
    .norm_2 = "ffn_norm",
    .up = "feed_forward.w3",
    .gate = "feed_forward.w1",
    .down = "feed_forward.w2",
};

constexpr TensorNames kBaichuanNames =
    with(kLlamaNames, [](TensorNames& n) { n.qkv = "self_attn.W_pack"; });

constexpr TensorNames kChatGlmNames = {
    .embedding = "transformer.embedding.word_embeddings",
    .blocks = "transformer.encoder.layers",
    .final_norm = "transformer.encoder.final_layernorm",
    .lm_head = "transformer.output_layer",
    .norm_1 = "input_layernorm",
    .qkv = "self_attention.query_key_value",
    .attn_out = "self_attention.dense",
    .norm_2 = "post_attention_layernorm",
    .gate_up = "mlp.dense_h_to_4h",
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

constexpr TensorNames kPhiNames = with(kLlamaNames, [](TensorNames& n) {
  n.final_norm = "model.final_layernorm";
  n.attn_out = "self_attn.dense";
  n.up = "mlp.fc1";
  n.down = "mlp.fc2";
});
constexpr TensorNames kPhi3Names = with(kLlamaNames, [](TensorNames& n) {
  n.qkv = "self_attn.qkv_proj";
  n.gate_up = "mlp.gate_up_proj";
});

constexpr TensorNames kGemma2Names = with(kLlamaNames, [](TensorNames& n) {
  n.norm_1_after = "post_attention_layernorm";
  n.norm_2 = "pre_feedforward_layernorm";
  n.norm_2_after = "post_feedforward_layernorm";
});

// ---- Keys of config.json beyond the usual ----

constexpr std::string_view kQwenKeys[] = {"activation",        "kv_channels",     "no_bias",
                                          "padded_vocab_size", "pos_emb",         "rotary_emb_base",
                                          "rotary_pct",        "use_dynamic_ntk", "use_logn_attn"};
constexpr std::string_view kLlamaKeys[] = {"attention_bias", "hidden_act", "mlp_bias",
                                           "use_dynamic_ntk", "use_logn_attn"};
// Without use_sliding_window the other keys of windows mean nothing.
constexpr std::string_view kQwen2Keys[] = {
    "attention_bias", "hidden_act",         "layer_types",     "max_window_layers", "qkv_bias",
    "sliding_window", "use_sliding_window", "use_dynamic_ntk", "use_logn_attn"};
constexpr std::string_view kMistralKeys[] = {"attention_bias", "hidden_act",      "mlp_bias",
                                             "sliding_window", "use_dynamic_ntk", "use_logn_attn"};
constexpr std::string_view kMixtralKeys[] = {
    "attention_bias",    "hidden_act",     "mlp_bias",        "num_experts_per_tok",
    "num_local_experts", "sliding_window", "use_dynamic_ntk", "use_logn_attn"};
constexpr std::string_view kQwenMoeKeys[] = {"attention_bias",
                                             "decoder_sparse_step",
                                             "hidden_act",
                                             "layer_types",
                                             "max_window_layers",
                                             "mlp_only_layers",
                                             "moe_intermediate_size",
                                             "norm_topk_prob",
                                             "num_experts",
                                             "num_experts_per_tok",
                                             "num_local_experts",
                                             "qkv_bias",
                                             "shared_expert_intermediate_size",
                                             "sliding_window",
                                             "use_dynamic_ntk",
                                             "use_logn_attn",
                                             "use_sliding_window"};
constexpr std::string_view kInternLmKeys[] = {"bias", "hidden_act", "rotary"};
constexpr std::string_view kBaichuanKeys[] = {"hidden_act", "model_max_length", "z_loss_weight"};
constexpr std::string_view kChatGlmKeys[] = {"add_bias_linear",
                                             "add_qkv_bias",
                                             "apply_residual_connection_post_layernorm",
                                             "kv_channels",
                                             "multi_query_attention",
                                             "multi_query_group_num",
                                             "original_rope",
                                             "padded_vocab_size",
                                             "post_layer_norm",
                                             "rmsnorm",
                                             "rope_ratio"};
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
constexpr std::string_view kGpt2Keys[] = {"activation_function", "add_cross_attention",
                                          "multi_query", "scale_attn_by_inverse_layer_idx",
                                          "scale_attn_weights"};
constexpr std::string_view kStarCoder2Keys[] = {"hidden_act", "mlp_type", "norm_type",
                                                "sliding_window", "use_bias"};
constexpr std::string_view kNeoXKeys[] = {"attention_bias", "hidden_act", "rotary_emb_base",
                                          "rotary_pct", "use_parallel_residual"};
constexpr std::string_view kPhiKeys[] = {"hidden_act", "qk_layernorm"};
constexpr std::string_view kPhi3Keys[] = {"attention_bias", "hidden_act", "sliding_window"};
// The activation is the same whatever the first two say.
constexpr std::string_view kGemmaKeys[] = {"hidden_act",
                                           "hidden_activation",
                                           "attention_bias",
                                           "attn_logit_softcapping",
                                           "final_logit_softcapping",
                                           "layer_types",
                                           "query_pre_attn_scalar",
                                           "sliding_window"};
constexpr std::string_view kGemma3Keys[] = {
    "hidden_act",     "hidden_activation",      "_sliding_window_pattern",
    "attention_bias", "attn_logit_softcapping", "final_logit_softcapping",
    "layer_types",    "query_pre_attn_scalar",  "rope_local_base_freq",
    "sliding_window", "sliding_window_pattern"};
constexpr std::string_view kSmolLm3Keys[] = {
    "attention_bias", "hidden_act",        "layer_types",
    "mlp_bias",       "max_window_layers", "no_rope_layer_interval",
    "no_rope_layers", "sliding_window",    "use_dynamic_ntk",
    "use_logn_attn",  "use_sliding_window"};
constexpr std::string_view kGraniteKeys[] = {
    "attention_bias",      "attention_multiplier", "embedding_multiplier",
    "hidden_act",          "logits_scaling",       "mlp_bias",
    "residual_multiplier", "use_dynamic_ntk",      "use_logn_attn"};

// ---- The table ----

constexpr ConfigNames kLayerNormKeys = {.eps = "layer_norm_epsilon"};
constexpr ConfigNames kGptKeys = {.hidden = "n_embd",
                                  .layers = "n_layer",
                                  .heads = "n_head",
                                  .ffn = "n_inner",
                                  .eps = "layer_norm_epsilon",
                                  .context = "n_positions"};

const FamilyRow kFamilies[] = {
    {Family::Qwen,
     "qwen",
     {},
     {"QWenLMHeadModel"},
     kLayerNormKeys,
     kQwenNames,
     false,
     read_qwen,
     write_qwen,
     kQwenKeys},
    {Family::Qwen2,
     "qwen2",
     {},
     {"Qwen2ForCausalLM"},
     {},
     kLlamaNames,
     false,
     read_qwen2,
     write_qwen2,
     kQwen2Keys},
    {Family::Qwen3,
     "qwen3",
     {},
     {"Qwen3ForCausalLM"},
     {},
     kLlamaNames,
     false,
     read_qwen3,
     write_llama,
     kQwen2Keys},
    {Family::Llama,
     "llama",
     {},
     {"LlamaForCausalLM", "LLaMAForCausalLM"},
     {},
     kLlamaNames,
     false,
     read_llama,
     write_llama,
     kLlamaKeys},
    {Family::Mistral,
     "mistral",
     {},
     {"MistralForCausalLM"},
     {},
     kLlamaNames,
     false,
     read_mistral,
     write_mistral,
     kMistralKeys},
    {Family::Mixtral,
     "mixtral",
     {},
     {"MixtralForCausalLM"},
     {},
     kMixtralNames,
     false,
     read_mixtral,
     write_mixtral,
     kMixtralKeys},
    {Family::Qwen2Moe,
     "qwen2_moe",
     {},
     {"Qwen2MoeForCausalLM"},
     {},
     kLlamaNames,
     false,
     read_qwen2_moe,
     write_qwen2_moe,
     kQwenMoeKeys},
    {Family::Qwen3Moe,
     "qwen3_moe",
     {},
     {"Qwen3MoeForCausalLM"},
     {},
     kLlamaNames,
     false,
     read_qwen3_moe,
     write_qwen3_moe,
     kQwenMoeKeys},
    {Family::InternLm,
     "internlm",
     {},
     {"InternLMForCausalLM"},
     {},
     kLlamaNames,
     false,
     read_internlm,
     write_internlm,
     kInternLmKeys},
    {Family::InternLm2,
     "internlm2",
     {},
     {"InternLM2ForCausalLM"},
     {},
     kInternLm2Names,
     false,
     read_internlm2,
     write_internlm,
     kInternLmKeys},
    {Family::Baichuan,
     "baichuan",
     {},
     {"BaichuanForCausalLM", "BaiChuanForCausalLM"},
     {},
     kBaichuanNames,
     false,
     read_baichuan,
     write_baichuan,
     kBaichuanKeys},
    {Family::ChatGlm,
     "chatglm",
     {},
     {"ChatGLMModel", "ChatGLMForConditionalGeneration"},
     {.layers = "num_layers",
      .ffn = "ffn_hidden_size",
      .eps = "layernorm_epsilon",
      .context = "seq_length",
      .vocab = "padded_vocab_size"},
     kChatGlmNames,
     false,
     read_chatglm,
     write_chatglm,
     kChatGlmKeys},
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
    {Family::Gpt2,
     "gpt2",
     {},
     {"GPT2LMHeadModel"},
     kGptKeys,
     kGpt2Names,
     true,
     read_gpt2,
     write_gpt2,
     kGpt2Keys},
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
    {Family::Phi,
     "phi",
     {},
     {"PhiForCausalLM"},
     {.eps = "layer_norm_eps"},
     kPhiNames,
     false,
     read_phi,
     write_phi,
     kPhiKeys},
    {Family::Phi3,
     "phi3",
     {},
     {"Phi3ForCausalLM"},
     {},
     kPhi3Names,
     false,
     read_phi3,
     write_phi3,
     kPhi3Keys},
    {Family::Gemma,
     "gemma",
     {},
     {"GemmaForCausalLM"},
     {},
     kLlamaNames,
     true,
     read_gemma,
     write_gemma,
     kGemmaKeys},
    {Family::Gemma2,
     "gemma2",
     {},
     {"Gemma2ForCausalLM"},
     {},
     kGemma2Names,
     true,
     read_gemma2,
     write_gemma2,
     kGemmaKeys},
    {Family::Gemma3,
     "gemma3_text",
     {"gemma3"},
     {"Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"},
     {},
     kGemma2Names,
     true,
     read_gemma3,
     write_gemma3,
     kGemma3Keys},
    {Family::SmolLm3,
     "smollm3",
     {},
     {"SmolLM3ForCausalLM"},
     {},
     kLlamaNames,
     true,
     read_smollm3,
     write_smollm3,
     kSmolLm3Keys},
    {Family::Granite,
     "granite",
     {},
     {"GraniteForCausalLM"},
     {},
     kLlamaNames,
     false,
     read_granite,
     write_granite,
     kGraniteKeys},
    {Family::Olmo2,
     "olmo2",
     {},
     {"Olmo2ForCausalLM"},
     {},
     kGemma2Names,
     false,
     read_olmo2,
     write_llama,
     kLlamaKeys},
};

}  // namespace

std::span<const FamilyRow> families() noexcept { return kFamilies; }

const FamilyRow& row_of(Family family) noexcept { return kFamilies[static_cast<size_t>(family)]; }

bool has_usual_rope(const Config& c) noexcept {
  return c.family != Family::Qwen && c.family != Family::ChatGlm && c.alibi_max == 0 &&
         c.learned_positions == 0;
}

std::optional<Json> find_any(const Json& json, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    if (name.empty()) continue;
    if (auto value = json.find(name)) return value;
  }
  return std::nullopt;
}

}  // namespace quern
