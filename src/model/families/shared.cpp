#include "model/families/shared.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace quern::family {
namespace {

struct ActivationRow {
  std::string_view name;
  Activation activation;
};
constexpr ActivationRow kActivations[] = {
    {"silu", Activation::Silu},         {"swish", Activation::Silu},
    {"gelu", Activation::Gelu},         {"gelu_pytorch_tanh", Activation::GeluTanh},
    {"gelu_new", Activation::GeluTanh}, {"gelu_fast", Activation::GeluTanh},
};

}  // namespace

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

void all_biases(Config& c, bool present) { c.qkv_bias = c.out_bias = c.mlp_bias = present; }

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

void check_experts(const Json& json, const Config& c) {
  if (c.experts.per_token <= c.experts.count) return;
  json.fail(fmt::format("chooses {} experts for each token, but has {}", c.experts.per_token,
                        c.experts.count));
}

}  // namespace quern::family
