#include "model/gguf_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "formats/unread_keys.h"
#include "model/families.h"
#include "model/gguf_archs.h"
#include "model/gguf_usual.h"
#include "model/rotary.h"

namespace quern {
namespace {

using nlohmann::ordered_json;

std::vector<float> rope_factors(const GgufFile& file, std::string_view name, const Config& c) {
  const GgufTensor* tensor = file.find(name);
  if (tensor == nullptr) file.fail(fmt::format("lacks the tensor {}", name));
  const auto count = static_cast<size_t>(c.rotary_dim / 2);
  if (!(tensor->shape == Shape{c.rotary_dim / 2}) || tensor->block.type != GgufType::F32) {
    file.fail(fmt::format("{} is {} {}, expected F32 ({})", name, tensor->block.name,
                          to_string(tensor->shape), count));
  }
  std::vector<float> values(count);
  dequantize_blocks(GgufType::F32, tensor->data, values);
  for (const float value : values) {
    if (!(value >= 1e-6f && value <= 1e6f)) {
      file.fail(fmt::format("{} has the factor {}", name, value));
    }
  }
  return values;
}

RopeScaling rope_scaling(const GgufFile& file, const std::string& arch, const Config& c) {
  RopeScaling s;
  const auto key = [&](const char* name) { return arch + ".rope.scaling." + name; };
  s.original_context = static_cast<double>(
      file.integer_or(key("original_context_length"), c.max_context, 1, int64_t{1} << 31));
  // attn_factor is what YaRN's own 0.1 ln(factor) + 1 is multiplied by.
  const double attention = file.number_or(
      key("attn_factor"), file.number_or(key("yarn_attn_factor"), 1, 1e-6, 1e6), 1e-6, 1e6);
  if (file.find(kRopeFreqs) != nullptr) {
    s.type = RopeScaling::Type::LongRope;
    s.short_factors = s.long_factors = rope_factors(file, kRopeFreqs, c);
    s.attention_factor = attention;
  } else if (file.find(kRopeFactorsLong) != nullptr) {
    s.type = RopeScaling::Type::LongRope;
    s.short_factors = rope_factors(file, kRopeFactorsShort, c);
    s.long_factors = rope_factors(file, kRopeFactorsLong, c);
    s.attention_factor = attention;
  }
  if (!file.has(key("type"))) return s;
  const std::string_view type = file.string(key("type"));
  if (type == "none" || (type == "longrope" && s.type == RopeScaling::Type::LongRope)) return s;
  if (s.type != RopeScaling::Type::None) {
    throw Error(Kind::Unsupported,
                fmt::format("{}: has rotary factors and the key '{}' of '{}'", file.path().string(),
                            key("type"), printable(type, 40)));
  }
  if (type != "linear" && type != "yarn") {
    file.fail(fmt::format("the key '{}' is '{}', expected none, linear, yarn or longrope",
                          key("type"), printable(type, 40)));
  }
  s.factor = file.number(key("factor"), 1e-3, 1e6);
  if (type == "linear") {
    s.type = RopeScaling::Type::Linear;
  } else {
    s.type = RopeScaling::Type::Yarn;
    s.beta_fast = file.number_or(key("yarn_beta_fast"), 32, 1e-6, 1e6);
    s.beta_slow = file.number_or(key("yarn_beta_slow"), 1, 1e-6, 1e6);
    if (attention != 1) s.attention_factor = attention * (0.1 * std::log(s.factor) + 1);
    if (file.number_or(key("yarn_log_multiplier"), 0, -1e6, 1e6) != 0 ||
        file.number_or(key("yarn_ext_factor"), 1, -1e6, 1e6) != 1) {
      throw Error(Kind::Unsupported, fmt::format("{}: sets '{}' or '{}', which are not supported",
                                                 file.path().string(), key("yarn_log_multiplier"),
                                                 key("yarn_ext_factor")));
    }
  }
  return s;
}

// Keys of an architecture that are read, or change nothing.
constexpr std::string_view kKnownKeys[] = {"attention.causal",
                                           "attention.head_count",
                                           "attention.head_count_kv",
                                           "attention.key_length",
                                           "attention.layer_norm_epsilon",
                                           "attention.layer_norm_rms_epsilon",
                                           "attention.scale",
                                           "attention.sliding_window",
                                           "attention.sliding_window_pattern",
                                           "attention.value_length",
                                           "block_count",
                                           "context_length",
                                           "embedding_length",
                                           "expert_count",
                                           "expert_feed_forward_length",
                                           "expert_shared_feed_forward_length",
                                           "expert_used_count",
                                           "expert_weights_norm",
                                           "feed_forward_length",
                                           "hidden_activation",
                                           "rope.dimension_count",
                                           "rope.freq_base",
                                           "rope.scale_linear",
                                           "rope.scaling.attn_factor",
                                           "rope.scaling.factor",
                                           "rope.scaling.finetuned",
                                           "rope.scaling.original_context_length",
                                           "rope.scaling.type",
                                           "rope.scaling.yarn_attn_factor",
                                           "rope.scaling.yarn_beta_fast",
                                           "rope.scaling.yarn_beta_slow",
                                           "rope.scaling.yarn_ext_factor",
                                           "rope.scaling.yarn_log_multiplier",
                                           "tensor_data_layout",
                                           "vocab_size"};

// Keys that only some families read: in files of others they would change the result.
struct OwnKey {
  std::string_view key;
  std::initializer_list<Family> families;
};
const OwnKey kOwnKeys[] = {
    {"attention.clamp_kqv", {Family::Mpt}},
    {"attention.max_alibi_bias", {Family::Mpt, Family::Baichuan, Family::Bloom}},
    {"attn_logit_softcapping", {Family::Gemma2}},
    {"embedding_scale", {Family::Granite}},
    {"final_logit_softcapping", {Family::Gemma2, Family::Gemma3}},
    {"logit_scale", {Family::Granite}},
    {"residual_scale", {Family::Granite}},
    {"rope.freq_base_swa", {Family::Gemma3}},
    {"use_parallel_residual", {Family::GptNeoX}}};

bool is_read(std::string_view key, Family family) {
  if (std::ranges::find(kKnownKeys, key) != std::end(kKnownKeys)) return true;
  const auto* own = std::ranges::find(kOwnKeys, key, &OwnKey::key);
  return own != std::end(kOwnKeys) &&
         std::ranges::find(own->families, family) != own->families.end();
}

// Refuses what would be another model, and warns of keys that are not known.
void check_keys(const GgufFile& file, const std::string& arch, Family family) {
  const auto refuse = [&](const std::string& key) {
    throw Error(Kind::Unsupported,
                fmt::format("{}: sets '{}', which is not supported", file.path().string(), key));
  };
  const std::string causal = arch + ".attention.causal", linear = arch + ".rope.scale_linear";
  if (!file.boolean_or(causal, true)) refuse(causal);
  if (const double factor = file.number_or(linear, 1, 0, 1e6); factor != 0 && factor != 1) {
    refuse(linear);
  }
  const auto is_zero = [](const auto& value) {
    if constexpr (std::is_arithmetic_v<std::decay_t<decltype(value)>>) {
      return value == std::decay_t<decltype(value)>{};
    } else {
      return value.size() == 0;
    }
  };
  std::vector<std::string> unread;
  for (const auto& [key, value] : file.metadata()) {
    if (!key.starts_with(arch + ".") || std::visit(is_zero, value)) continue;
    if (!is_read(std::string_view(key).substr(arch.size() + 1), family)) {
      unread.push_back(printable(key, 80));
    }
  }
  warn_of_unread_keys(file.path().string(), unread);
}

const GgufArch& arch_of(const GgufFile& file) {
  const std::string_view name = file.string("general.architecture");
  Family family{};
  bool known = false;
  for (const GgufArch& arch : gguf_archs()) {
    if (arch.name != name || known) continue;
    known = true;
    family = arch.family;
  }
  if (!known) {
    std::vector<std::string_view> names;
    for (const GgufArch& arch : gguf_archs()) {
      if (names.empty() || names.back() != arch.name) names.push_back(arch.name);
    }
    throw Error(Kind::Unsupported,
                fmt::format("{}: the architecture '{}' is not known", file.path().string(),
                            printable(name, 40)),
                fmt::format("known are {}", fmt::join(names, ", ")));
  }
  if (family == Family::Llama) {
    if (file.integer_or("llama.expert_count", 0, 0, kMaxExperts) > 0) {
      family = Family::Mixtral;
    } else if (file.integer_or("llama.attention.sliding_window", 0, 0, kMaxContext) > 0) {
      family = Family::Mistral;
    }
  }
  return *gguf_arch(family);
}

// What a family's config.json would say that its reader asks for; the numbers that all families
// have come from the metadata's own keys.
ordered_json family_json(const GgufFile& file, const std::string& arch, const Config& c) {
  const auto key = [&](const char* name) { return arch + "." + name; };
  const FamilyRow& row = row_of(c.family);
  ordered_json out = {{"architectures", {*row.architectures.begin()}},
                      {row.keys.hidden, c.hidden},
                      {row.keys.layers, c.layers},
                      {row.keys.heads, c.heads},
                      {row.keys.ffn, c.ffn},
                      {row.keys.vocab, c.output_vocab},
                      {row.keys.eps, static_cast<double>(c.norm_eps)},
                      {row.keys.context, c.max_context}};
  const auto experts = [&](const char* name) { return file.integer(key(name), 1, kMaxExperts); };
  const auto softcapping = [&](const char* name) {
    if (file.has(key(name))) out[name] = file.number(key(name), 0, 1e6);
  };
  switch (c.family) {
    case Family::Qwen:
      out["intermediate_size"] = c.ffn;
      out["padded_vocab_size"] = c.vocab;
      break;
    case Family::Mixtral:
      out["num_local_experts"] = experts("expert_count");
      out["num_experts_per_tok"] = experts("expert_used_count");
      break;
    case Family::Qwen2Moe:
    case Family::Qwen3Moe:
      out["num_experts"] = experts("expert_count");
      out["num_experts_per_tok"] = experts("expert_used_count");
      out["moe_intermediate_size"] =
          file.integer_or(key("expert_feed_forward_length"), c.ffn, 1, kMaxDim);
      out["shared_expert_intermediate_size"] =
          file.integer_or(key("expert_shared_feed_forward_length"), c.ffn, 0, kMaxDim);
      out["norm_topk_prob"] = c.family == Family::Qwen3Moe;
      break;
    case Family::Baichuan:
      if (c.layers == kBaichuan13Layers || file.has(key("attention.max_alibi_bias"))) {
        out.erase("max_position_embeddings");
        out["model_max_length"] = c.max_context;
      }
      break;
    case Family::Falcon:
      out["new_decoder_architecture"] = file.find("blk.0.attn_norm_2.weight") != nullptr;
      break;
    case Family::Mpt: {
      const double most = file.number_or(key("attention.max_alibi_bias"), 0, 0, 1024);
      out["attn_config"] = {{"alibi", most > 0}, {"alibi_bias_max", std::max(most, 1e-3)}};
      const double clip = file.number_or(key("attention.clamp_kqv"), 0, 0, 1e6);
      if (clip > 0) out["attn_config"]["clip_qkv"] = clip;
      break;
    }
    case Family::GptNeoX:
      out["use_parallel_residual"] = file.boolean_or(key("use_parallel_residual"), true);
      break;
    case Family::Gemma2:
      softcapping("attn_logit_softcapping");
      softcapping("final_logit_softcapping");
      break;
    case Family::Gemma3:
      softcapping("final_logit_softcapping");
      break;
    case Family::Granite:
      out["embedding_multiplier"] = file.number_or(key("embedding_scale"), 1, 1e-6, 1e6);
      out["residual_multiplier"] = file.number_or(key("residual_scale"), 1, 1e-6, 1e6);
      out["logits_scaling"] = file.number(key("logit_scale"), 1e-6, 1e6);
      break;
    default:
      break;
  }
  return out;
}

// The layers that see a window: by a list, by a number of layers of which the last sees all, or by
// the architecture's own such number. Mistral, Phi-3 and StarCoder2 have one in all layers.
void read_windows(const GgufFile& file, const GgufArch& arch, Config& c) {
  const std::string key = fmt::format("{}.attention.sliding_window", arch.name);
  c.windows.clear();
  const bool all = c.family == Family::Mistral || c.family == Family::Mixtral ||
                   c.family == Family::Phi3 || c.family == Family::StarCoder2;
  const std::string pattern = key + "_pattern";
  if (!all && arch.windowed == 0 && !file.has(pattern)) return;
  const int64_t usual = c.family == Family::Gemma2 ? 4096 : 0;
  const int64_t window = file.integer_or(key, usual, 0, kMaxContext);
  if (window == 0) return;
  c.windows.assign(static_cast<size_t>(c.layers), all ? window : 0);
  if (file.has(pattern) && file.is_array(pattern)) {
    const std::vector<double>& list = file.numbers(pattern);
    if (std::ssize(list) != c.layers) {
      file.fail(
          fmt::format("the key '{}' has {} values for {} layers", pattern, list.size(), c.layers));
    }
    for (size_t i = 0; i < list.size(); ++i) c.windows[i] = list[i] != 0 ? window : 0;
    return;
  }
  if (all) return;
  const int64_t every = file.integer_or(pattern, arch.windowed, 0, kMaxLayers);
  for (int64_t i = 0; every > 0 && i < c.layers; ++i) {
    c.windows[static_cast<size_t>(i)] = i % every < every - 1 ? window : 0;
  }
}

void read_experts(const GgufFile& file, const std::string& arch, Config& c) {
  if (c.experts.count == 0) return;
  c.experts.normalized = file.boolean_or(arch + ".expert_weights_norm", c.experts.normalized);
  c.experts.dense.assign(static_cast<size_t>(c.layers), false);
  for (int64_t i = 0; i < c.layers; ++i) {
    c.experts.dense[static_cast<size_t>(i)] =
        file.find(fmt::format("blk.{}.ffn_gate_inp.weight", i)) == nullptr;
  }
}

}  // namespace

bool is_gguf_rope_factors(std::string_view name) noexcept {
  return name == kRopeFreqs || name == kRopeFactorsShort || name == kRopeFactorsLong;
}

Config gguf_config(const GgufFile& file) {
  const GgufArch& arch = arch_of(file);
  const std::string arch_name(arch.name);
  const auto key = [&](const char* name) { return arch_name + "." + name; };
  const auto has = [&](const char* name) { return file.find(name) != nullptr; };
  check_keys(file, arch_name, arch.family);
  Config k;  // what the keys say
  k.family = arch.family;
  k.layers = file.integer(key("block_count"), 1, kMaxLayers);
  k.hidden = file.integer(key("embedding_length"), 1, kMaxDim);
  k.heads = file.integer(key("attention.head_count"), 1, kMaxDim);
  const bool one_kv_head = k.family == Family::Falcon || k.family == Family::StarCoder;
  k.kv_heads =
      file.integer_or(key("attention.head_count_kv"), one_kv_head ? 1 : k.heads, 1, kMaxDim);
  if (k.heads % k.kv_heads != 0) {
    file.fail(
        fmt::format("has {} heads, which {} key/value heads do not divide", k.heads, k.kv_heads));
  }
  if (!file.has(key("attention.key_length")) && k.hidden % k.heads != 0) {
    file.fail(fmt::format("the key '{}' is {}, which {} heads do not divide",
                          key("embedding_length"), k.hidden, k.heads));
  }
  k.head_dim = file.integer_or(key("attention.key_length"),
                               std::max<int64_t>(k.hidden / k.heads, 1), 1, kMaxDim);
  if (file.integer_or(key("attention.value_length"), k.head_dim, 1, kMaxDim) != k.head_dim) {
    file.fail(
        fmt::format("the key '{}' differs from the keys' length", key("attention.value_length")));
  }
  k.rotary_dim = file.integer_or(key("rope.dimension_count"), k.head_dim, 0, k.head_dim);
  if (k.rotary_dim % 2 != 0) {
    file.fail(fmt::format("the key '{}' is {}, expected an even number",
                          key("rope.dimension_count"), k.rotary_dim));
  }
  k.ffn = file.integer(key("feed_forward_length"), 1, 2 * kMaxDim);
  const bool rms = file.has(key("attention.layer_norm_rms_epsilon")) ||
                   !file.has(key("attention.layer_norm_epsilon"));
  k.norm_eps = static_cast<float>(file.number(
      key(rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon"), 1e-20, 1));
  k.rope_theta = file.number_or(key("rope.freq_base"), 10000, 1, 1e12);
  k.max_context = file.integer(key("context_length"), 2, kMaxContext);
  const GgufTensor* embedding = file.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.rank() != 2) {
    file.fail("lacks the matrix token_embd.weight");
  }
  k.vocab = k.output_vocab = embedding->shape[0];
  const GgufTensor* head = file.find("output.weight");
  if (head != nullptr && head->shape.rank() == 2) k.output_vocab = head->shape[0];
  if (k.output_vocab > k.vocab || k.output_vocab > kMaxVocab) {
    file.fail(fmt::format("output.weight has {} rows, the embedding {}", k.output_vocab, k.vocab));
  }
  if (k.family == Family::Qwen) {  // the format keeps Qwen's own count, of w1 and w2 together
    if (k.ffn % 2 != 0) file.fail(fmt::format("the key '{}' is odd", key("feed_forward_length")));
    if (k.hidden != k.heads * k.head_dim) {
      file.fail(fmt::format("the heads' dims are {}, embedding_length is {}", k.heads * k.head_dim,
                            k.hidden));
    }
  }
  const ordered_json says = family_json(file, arch_name, k);
  Config c = parse_config(Json::parse(dump(says), file.path().string()));
  if ((c.norm == NormKind::Rms) != rms) {
    file.fail(fmt::format("lacks the key '{}'",
                          key(c.norm == NormKind::Rms ? "attention.layer_norm_rms_epsilon"
                                                      : "attention.layer_norm_epsilon")));
  }
  c.kv_heads = k.kv_heads;
  c.head_dim = k.head_dim;
  const bool rotary = c.alibi_max == 0 && c.learned_positions == 0;
  c.rotary_dim = rotary ? k.rotary_dim : 0;
  c.rope_theta = k.rope_theta;
  c.vocab = k.vocab;
  c.output_vocab = k.output_vocab;
  c.tied = head == nullptr;
  if (c.alibi_max == 0) c.max_context = c.trained_context = k.max_context;
  c.dynamic_ntk = c.logn = false;
  // The layout, as gguf_layout() has it but for what the file has otherwise.
  c = gguf_layout(c);
  c.tied = head == nullptr;
  c.qkv_order = has("blk.0.attn_qkv.weight") ? QkvOrder::Concat : QkvOrder::Separate;
  c.fused_gate_up = c.gated && c.experts.count == 0 && !has("blk.0.ffn_gate.weight");
  c.norm_bias = has("output_norm.bias");
  c.qkv_bias = c.family == Family::Qwen || c.family == Family::Qwen2 || has("blk.0.attn_q.bias") ||
               has("blk.0.attn_qkv.bias");
  c.out_bias = has("blk.0.attn_output.bias");
  c.mlp_bias = has("blk.0.ffn_down.bias");
  c.head_bias = has("output.bias");
  // Baichuan 2's head is kept as it was trained.
  c.head_normalized = c.family == Family::Baichuan && c.vocab == 125696;
  if (c.family == Family::Falcon) {
    c.parallel = true;
    c.mlp_norm = has("blk.0.attn_norm_2.weight");
  }
  read_windows(file, arch, c);
  if (c.rope_local_theta > 0) {
    c.rope_local_theta = file.number_or(key("rope.freq_base_swa"), 10000, 1, 1e12);
    c.rope_layers.clear();
    for (int64_t i = 0; i < c.layers; ++i) {
      c.rope_layers.push_back(c.window(i) > 0 ? RopeUse::Local : RopeUse::Global);
    }
  }
  read_experts(file, arch_name, c);
  c.attention_scale = static_cast<float>(file.number_or(key("attention.scale"), 0, 0, 1e6));
  if (c.attention_scale == 0 && !has_usual_score_scale(c)) {
    c.attention_scale = usual_score_scale(c);
  }
  c.activation = usual_activation(c.family);
  if (file.has(key("hidden_activation"))) {
    const auto* word = std::ranges::find(kGgufActivations, file.string(key("hidden_activation")));
    if (word == std::end(kGgufActivations)) {
      file.fail(fmt::format("the key '{}' is '{}', expected {}", key("hidden_activation"),
                            printable(file.string(key("hidden_activation")), 40),
                            fmt::join(kGgufActivations, ", ")));
    }
    c.activation = static_cast<Activation>(word - std::begin(kGgufActivations));
  }
  c.rope_scaling = rotary ? rope_scaling(file, arch_name, c) : RopeScaling{};
  c.dtype = DType::F16;
  const auto id = [&](const std::string& name) -> std::optional<int64_t> {
    if (!file.has(name)) return std::nullopt;
    return file.integer(name, 0, c.vocab - 1);
  };
  c.bos_id = id("tokenizer.ggml.bos_token_id");
  c.eos_ids.clear();
  for (const char* name : {"eos_token_id", "eot_token_id"}) {
    const auto end = id(fmt::format("tokenizer.ggml.{}", name));
    if (end && std::ranges::find(c.eos_ids, *end) == c.eos_ids.end()) c.eos_ids.push_back(*end);
  }
  return c;
}

}  // namespace quern
