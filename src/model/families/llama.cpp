// LLaMA and what is almost LLaMA: Mistral, Mixtral, SmolLM3, Granite, OLMo 2.
#include <fmt/format.h>

#include "model/families/shared.h"

namespace quern::family {
namespace {

void read_mistral(const Json& json, Config& c) {
  read_llama(json, c);
  window_everywhere(json, c);
}

void write_mistral(const Config& c, ordered_json& out) {
  write_llama(c, out);
  write_window(c, out);
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

constexpr TensorNames kMixtralNames = with(kLlamaNames, [](TensorNames& n) {
  n.router = "block_sparse_moe.gate";
  n.experts = "block_sparse_moe.experts";
  n.expert_up = "w3";
  n.expert_gate = "w1";
  n.expert_down = "w2";
});

// ---- Keys of config.json beyond the usual ----

constexpr std::string_view kLlamaKeys[] = {"attention_bias", "hidden_act", "mlp_bias",
                                           "use_dynamic_ntk", "use_logn_attn"};
constexpr std::string_view kMistralKeys[] = {"attention_bias", "hidden_act",      "mlp_bias",
                                             "sliding_window", "use_dynamic_ntk", "use_logn_attn"};
constexpr std::string_view kMixtralKeys[] = {
    "attention_bias",    "hidden_act",     "mlp_bias",        "num_experts_per_tok",
    "num_local_experts", "sliding_window", "use_dynamic_ntk", "use_logn_attn"};
constexpr std::string_view kSmolLm3Keys[] = {
    "attention_bias", "hidden_act",        "layer_types",
    "mlp_bias",       "max_window_layers", "no_rope_layer_interval",
    "no_rope_layers", "sliding_window",    "use_dynamic_ntk",
    "use_logn_attn",  "use_sliding_window"};
constexpr std::string_view kGraniteKeys[] = {
    "attention_bias",      "attention_multiplier", "embedding_multiplier",
    "hidden_act",          "logits_scaling",       "mlp_bias",
    "residual_multiplier", "use_dynamic_ntk",      "use_logn_attn"};

// ---- Rows ----

const FamilyRow kRows[] = {{Family::Llama,
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
                            kNormsAfterNames,
                            false,
                            read_olmo2,
                            write_llama,
                            kLlamaKeys}};

}  // namespace

std::span<const FamilyRow> llama() { return kRows; }

}  // namespace quern::family
