// Gemma, and Phi from its third version on.

#include <cmath>

#include "model/families/shared.h"

namespace quern::family {
namespace {

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

// ---- Names of tensors ----

constexpr TensorNames kPhi3Names = with(kLlamaNames, [](TensorNames& n) {
  n.qkv = "self_attn.qkv_proj";
  n.gate_up = "mlp.gate_up_proj";
});

// ---- Keys of config.json beyond the usual ----

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

// ---- Rows ----

const FamilyRow kRows[] = {{Family::Phi3,
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
                            kNormsAfterNames,
                            true,
                            read_gemma2,
                            write_gemma2,
                            kGemmaKeys},
                           {Family::Gemma3,
                            "gemma3_text",
                            {"gemma3"},
                            {"Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"},
                            {},
                            kNormsAfterNames,
                            true,
                            read_gemma3,
                            write_gemma3,
                            kGemma3Keys}};

}  // namespace

std::span<const FamilyRow> gemma() { return kRows; }

}  // namespace quern::family
