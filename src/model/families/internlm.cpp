// InternLM, Baichuan, ChatGLM.

#include "model/families/shared.h"

namespace quern::family {
namespace {

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

// ---- Names of tensors ----

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

// ---- Keys of config.json beyond the usual ----

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

// ---- Rows ----

const FamilyRow kRows[] = {{Family::InternLm,
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
                            kChatGlmKeys}};

}  // namespace

std::span<const FamilyRow> internlm() { return kRows; }

}  // namespace quern::family
