// Qwen: the first release with the old names and the new ones, Qwen2, Qwen3, and those with experts.
#include <fmt/format.h>

#include <algorithm>

#include "model/families/shared.h"

namespace quern::family {
namespace {

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

// ---- Names of tensors ----

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

// ---- Keys of config.json beyond the usual ----

constexpr std::string_view kQwenKeys[] = {"activation",        "kv_channels",     "no_bias",
                                          "padded_vocab_size", "pos_emb",         "rotary_emb_base",
                                          "rotary_pct",        "use_dynamic_ntk", "use_logn_attn"};
// Without use_sliding_window the other keys of windows mean nothing.
constexpr std::string_view kQwen2Keys[] = {
    "attention_bias", "hidden_act",         "layer_types",     "max_window_layers", "qkv_bias",
    "sliding_window", "use_sliding_window", "use_dynamic_ntk", "use_logn_attn"};
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

// ---- Rows ----

constexpr ConfigNames kLayerNormKeys = {.eps = "layer_norm_epsilon"};

const FamilyRow kRows[] = {{Family::Qwen,
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
                            kQwenMoeKeys}};

}  // namespace

std::span<const FamilyRow> qwen() { return kRows; }

}  // namespace quern::family
