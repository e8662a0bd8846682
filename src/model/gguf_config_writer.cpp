#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "model/families.h"
#include "model/gguf_archs.h"
#include "model/gguf_config.h"
#include "model/gguf_usual.h"
#include "model/rotary.h"

namespace quern {
namespace {

constexpr int64_t kSmolLm3Interval = 4;  // of its layers each fourth has no positions

// Whether llama.cpp applies the layers' windows: none, or of one size where the architecture knows
// windows by layer.
bool keeps_windows(const Config& c, bool by_layer) {
  int64_t size = 0;
  for (const int64_t window : c.windows) {
    if (window == 0) continue;
    if (!by_layer || (size > 0 && window != size)) return false;
    size = window;
  }
  return true;
}

}  // namespace

// The scale of scores that an architecture has where no key says it.
float usual_score_scale(const Config& c) {
  // By their number of layers, Gemma's 27B models.
  const bool large = (c.family == Family::Gemma2 && c.layers == 46) ||
                     (c.family == Family::Gemma3 && c.layers == 62);
  const int64_t dim = large ? c.hidden / c.heads : c.head_dim;
  return 1 / std::sqrt(static_cast<float>(dim));
}

Activation usual_activation(Family family) {
  switch (family) {
    case Family::Falcon:
    case Family::Mpt:
    case Family::GptNeoX:
    case Family::StarCoder:
      return Activation::Gelu;
    case Family::StarCoder2:
    case Family::Gpt2:
    case Family::Phi:
    case Family::Bloom:
    case Family::Gemma:
    case Family::Gemma2:
    case Family::Gemma3:
      return Activation::GeluTanh;
    default:
      return Activation::Silu;
  }
}

bool has_usual_score_scale(const Config& c) {
  const float usual = usual_score_scale(c);
  return std::abs(c.score_scale() - usual) <= 1e-5f * std::abs(usual);
}

void add_gguf_config(GgufWriter& out, const Config& c, const std::string& name) {
  const GgufArch& arch = *gguf_arch(c.family);
  const auto key = [&](const char* field) { return fmt::format("{}.{}", arch.name, field); };
  const auto u32 = [](int64_t value) { return static_cast<uint32_t>(value); };
  out.add_string("general.architecture", arch.name);
  out.add_string("general.name", name);
  const int64_t context = c.alibi_max > 0 ? c.trained_context : c.max_context;
  out.add_u32(key("context_length"), u32(context));
  out.add_u32(key("block_count"), u32(c.layers));
  out.add_u32(key("embedding_length"), u32(c.hidden));
  out.add_u32(key("feed_forward_length"), u32(c.family == Family::Qwen ? 2 * c.ffn : c.ffn));
  out.add_u32(key("attention.head_count"), u32(c.heads));
  out.add_u32(key("attention.head_count_kv"), u32(c.kv_heads));
  if (c.head_dim * c.heads != c.hidden || c.family == Family::Qwen3) {
    out.add_u32(key("attention.key_length"), u32(c.head_dim));
    out.add_u32(key("attention.value_length"), u32(c.head_dim));
  }
  if (c.rotary_dim > 0) {
    out.add_u32(key("rope.dimension_count"), u32(c.rotary_dim));
    out.add_f32(key("rope.freq_base"), static_cast<float>(c.rope_theta));
  }
  if (c.rope_local_theta > 0) {
    out.add_f32(key("rope.freq_base_swa"), static_cast<float>(c.rope_local_theta));
  }
  out.add_f32(key(c.norm == NormKind::Rms ? "attention.layer_norm_rms_epsilon"
                                          : "attention.layer_norm_epsilon"),
              c.norm_eps);
  out.add_u32(key("vocab_size"), u32(c.vocab));
  const RopeScaling& s = c.rope_scaling;
  if (s.type == RopeScaling::Type::Linear || s.type == RopeScaling::Type::Yarn) {
    const bool linear = s.type == RopeScaling::Type::Linear;
    out.add_string(key("rope.scaling.type"), linear ? "linear" : "yarn");
    out.add_f32(key("rope.scaling.factor"), static_cast<float>(s.factor));
    out.add_u32(key("rope.scaling.original_context_length"),
                static_cast<uint32_t>(s.original_context));
  } else if (s.type == RopeScaling::Type::LongRope) {
    out.add_u32(key("rope.scaling.original_context_length"),
                static_cast<uint32_t>(s.original_context));
    out.add_f32(key("rope.scaling.attn_factor"), static_cast<float>(rotary_magnitude(c)));
  }
  if (c.alibi_max > 0) {
    out.add_f32(key("attention.max_alibi_bias"), static_cast<float>(c.alibi_max));
  }
  if (c.clip_qkv > 0) out.add_f32(key("attention.clamp_kqv"), c.clip_qkv);
  if (!has_usual_score_scale(c) || c.family == Family::Granite) {
    out.add_f32(key("attention.scale"), c.score_scale());
  }
  if (c.activation != usual_activation(c.family)) {
    out.add_string(key("hidden_activation"), kGgufActivations[static_cast<size_t>(c.activation)]);
  }
  if (c.family == Family::GptNeoX) out.add_bool(key("use_parallel_residual"), c.parallel);
  if (c.family == Family::Granite) {
    out.add_f32(key("embedding_scale"), c.embed_scale);
    out.add_f32(key("residual_scale"), c.residual_scale);
    out.add_f32(key("logit_scale"), 1 / c.logit_scale);
  }
  if (c.family == Family::Gemma2) out.add_f32(key("attn_logit_softcapping"), c.score_cap);
  if (c.family == Family::Gemma2 || c.logit_cap > 0) {
    out.add_f32(key("final_logit_softcapping"), c.logit_cap);
  }
  if (c.experts.count > 0) {
    out.add_u32(key("expert_count"), u32(c.experts.count));
    out.add_u32(key("expert_used_count"), u32(c.experts.per_token));
    out.add_bool(key("expert_weights_norm"), c.experts.normalized);
    if (c.family != Family::Mixtral) {
      out.add_u32(key("expert_feed_forward_length"), u32(c.experts.ffn));
      out.add_u32(key("expert_shared_feed_forward_length"), u32(c.experts.shared_ffn));
    }
  }
  const auto windowed = std::ranges::find_if(c.windows, [](int64_t w) { return w > 0; });
  if (windowed != c.windows.end()) {
    out.add_u32(key("attention.sliding_window"), u32(*windowed));
    std::vector<bool> layers;
    for (const int64_t window : c.windows) layers.push_back(window > 0);
    out.add_bools(key("attention.sliding_window_pattern"), layers);
  }
}

std::vector<GgufFactors> gguf_rope_factors(const Config& c) {
  const RopeScaling& s = c.rope_scaling;
  if (s.type == RopeScaling::Type::LongRope) {
    if (s.short_factors == s.long_factors) return {{std::string(kRopeFreqs), s.short_factors}};
    return {{std::string(kRopeFactorsLong), s.long_factors},
            {std::string(kRopeFactorsShort), s.short_factors}};
  }
  if (s.type != RopeScaling::Type::Llama3) return {};
  Config plain = c;
  plain.rope_scaling = {};
  std::vector<float> out = inverse_frequencies(plain, 1);
  const std::vector<float> scaled = inverse_frequencies(c, 1);
  for (size_t i = 0; i < out.size(); ++i) out[i] /= scaled[i];
  return {{std::string(kRopeFreqs), std::move(out)}};
}

std::vector<std::string> lost_in_gguf(const Config& c) {
  const GgufArch* arch = gguf_arch(c.family);
  const auto no_place = [&](const std::string& what) {
    throw Error(Kind::Unsupported,
                fmt::format("GGUF has no place for {} of {} models", what, name(c.family)),
                "the checkpoint runs as it is");
  };
  if (arch == nullptr) no_place("the tensors");
  if (c.family == Family::Falcon && c.alibi_max > 0) no_place("the ALiBi positions");
  if (c.family == Family::Falcon && !c.parallel) no_place("sequential branches");
  if (c.family == Family::Gemma || c.family == Family::Gemma2) {
    if (!c.tied) no_place("a head apart from the embedding");
  }
  std::vector<std::string> lost;
  const auto biases = arch->biases;
  if ((biases == GgufBiases::None && c.qkv_bias) ||
      ((biases == GgufBiases::None || biases == GgufBiases::Qkv) && (c.out_bias || c.mlp_bias))) {
    lost.emplace_back("biases");
  }
  if (c.dynamic_ntk) lost.emplace_back("dynamic NTK");
  if (c.logn) lost.emplace_back("LogN scaling");
  if (!keeps_windows(c, arch->windowed > 0)) lost.emplace_back("attention windows of the layers");
  if (c.family == Family::Baichuan && (c.alibi_max > 0) != (c.layers == kBaichuan13Layers)) {
    lost.emplace_back("the kind of positions, which goes by the number of layers");
  }
  if (!has_usual_score_scale(c) && c.family != Family::Granite) {
    lost.emplace_back("the scale of attention's scores");
  }
  if (c.score_cap > 0 && c.family != Family::Gemma2) lost.emplace_back("the cap of scores");
  // Both of GELU's forms are one there.
  if ((c.activation == Activation::Silu) != (usual_activation(c.family) == Activation::Silu)) {
    lost.emplace_back("the activation");
  }
  if (c.experts.count > 0) {
    if (c.experts.normalized == (c.family == Family::Qwen2Moe)) {
      lost.emplace_back("whether the weights of a token's experts add up to 1");
    }
    for (int64_t i = 0; i < c.layers; ++i) {
      if (c.has_experts(i)) continue;
      lost.emplace_back("layers without experts");
      break;
    }
  }
  for (size_t i = 0; i < c.rope_layers.size(); ++i) {
    const bool none = c.rope_layers[i] == RopeUse::None;
    if (none ==
        ((static_cast<int64_t>(i) + 1) % kSmolLm3Interval == 0 && c.family == Family::SmolLm3)) {
      continue;
    }
    lost.emplace_back("which layers have no positions");
    break;
  }
  const RopeScaling& s = c.rope_scaling;
  if (s.type == RopeScaling::Type::Dynamic) lost.emplace_back("rope_scaling of type dynamic");
  if (s.type == RopeScaling::Type::LongRope && c.family != Family::Phi3 &&
      (s.short_factors != s.long_factors || rotary_magnitude(c) != 1)) {
    lost.emplace_back("rope_scaling of type longrope");
  }
  if (s.type == RopeScaling::Type::Yarn) {
    if (s.beta_fast != 32) lost.emplace_back("YaRN's beta_fast");
    if (s.beta_slow != 1) lost.emplace_back("YaRN's beta_slow");
    if (!s.truncate) lost.emplace_back("YaRN's truncate");
    RopeScaling usual = s;
    usual.attention_factor = usual.mscale = usual.mscale_all_dim = std::nullopt;
    Config other = c;
    other.rope_scaling = usual;
    if (rotary_magnitude(other) != rotary_magnitude(c)) {
      lost.emplace_back(s.attention_factor ? "YaRN's attention_factor" : "YaRN's mscale");
    }
  }
  if (c.eos_ids.size() > 2) lost.emplace_back("the third and further ends of text");
  return lost;
}

}  // namespace quern
