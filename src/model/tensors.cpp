#include "model/tensors.h"

#include <fmt/format.h>

namespace quern {
namespace {

// Names of a block's modules inside "<prefix>.<layer>."; empty where the family has none.
struct Names {
  std::string_view embedding, blocks, final_norm, lm_head;
  std::string_view norm_1, qkv, q, k, v, q_norm, k_norm, attn_out, norm_2, up, gate, down;
};

constexpr Names kQwenNames = {
    .embedding = "transformer.wte",
    .blocks = "transformer.h",
    .final_norm = "transformer.ln_f",
    .lm_head = "lm_head",
    .norm_1 = "ln_1",
    .qkv = "attn.c_attn",
    .q = "",
    .k = "",
    .v = "",
    .q_norm = "",
    .k_norm = "",
    .attn_out = "attn.c_proj",
    .norm_2 = "ln_2",
    .up = "mlp.w1",
    .gate = "mlp.w2",  // the gate is the second: c_proj(w1(x) * silu(w2(x)))
    .down = "mlp.c_proj",
};

constexpr Names kLlamaNames = {
    .embedding = "model.embed_tokens",
    .blocks = "model.layers",
    .final_norm = "model.norm",
    .lm_head = "lm_head",
    .norm_1 = "input_layernorm",
    .qkv = "",
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
};

}  // namespace

std::vector<TensorSpec> tensor_specs(const Config& c) {
  const Names& names = c.family == Family::Qwen ? kQwenNames : kLlamaNames;
  std::vector<TensorSpec> specs;
  const auto add = [&](std::string module, Part part, Role role, Shape shape, int64_t layer,
                       bool bias = false) {
    std::string name = module + ".weight";
    const int64_t rows = shape[0];
    specs.push_back({std::move(name), module, shape, part, role, layer});
    if (bias) specs.push_back({module + ".bias", module, Shape{rows}, part, Role::Bias, layer});
  };

  add(std::string(names.embedding), Part::Embedding, Role::Embedding, {c.vocab, c.hidden}, -1);
  for (int64_t l = 0; l < c.layers; ++l) {
    const auto in_block = [&](std::string_view name) {
      return fmt::format("{}.{}.{}", names.blocks, l, name);
    };
    const auto norm = [&](std::string_view name, Part part, int64_t dim) {
      add(in_block(name), part, Role::Norm, {dim}, l);
    };
    const auto matrix = [&](std::string_view name, Part part, int64_t rows, int64_t cols,
                            bool bias) {
      add(in_block(name), part, Role::Matrix, {rows, cols}, l, bias);
    };
    norm(names.norm_1, Part::Norm1, c.hidden);
    if (!names.qkv.empty()) {
      matrix(names.qkv, Part::Qkv, c.query_dim() + 2 * c.kv_dim(), c.hidden, c.qkv_bias);
    } else {
      matrix(names.q, Part::Q, c.query_dim(), c.hidden, c.qkv_bias);
      matrix(names.k, Part::K, c.kv_dim(), c.hidden, c.qkv_bias);
      matrix(names.v, Part::V, c.kv_dim(), c.hidden, c.qkv_bias);
    }
    if (c.qk_norm) {
      norm(names.q_norm, Part::QNorm, c.head_dim);
      norm(names.k_norm, Part::KNorm, c.head_dim);
    }
    matrix(names.attn_out, Part::AttnOut, c.hidden, c.query_dim(), c.out_bias);
    norm(names.norm_2, Part::Norm2, c.hidden);
    matrix(names.up, Part::Up, c.ffn, c.hidden, c.mlp_bias);
    matrix(names.gate, Part::Gate, c.ffn, c.hidden, c.mlp_bias);
    matrix(names.down, Part::Down, c.hidden, c.ffn, c.mlp_bias);
  }
  add(std::string(names.final_norm), Part::FinalNorm, Role::Norm, {c.hidden}, -1);
  if (!c.tied) {
    add(std::string(names.lm_head), Part::LmHead, Role::Head, {c.output_vocab, c.hidden}, -1);
  }
  return specs;
}

std::vector<TensorSpec> adapter_specs(
    const Config& config, const std::function<AdapterShape(const TensorSpec& matrix)>& choose) {
  std::vector<TensorSpec> specs;
  for (const TensorSpec& spec : tensor_specs(config)) {
    if (spec.role != Role::Matrix && spec.role != Role::Head) continue;
    const AdapterShape adapter = choose(spec);
    if (adapter.rank <= 0) continue;
    const auto add = [&](std::string_view factor, Role role, Shape shape) {
      const std::string module = fmt::format("base_model.model.{}.{}", spec.module, factor);
      specs.push_back(
          {module + ".weight", module, shape, spec.part, role, spec.layer, adapter.scale});
    };
    add("lora_A", Role::LoraA, {adapter.rank, spec.shape[1]});
    add("lora_B", Role::LoraB, {spec.shape[0], adapter.rank});
  }
  return specs;
}

ParameterCount count_parameters(const Config& config) {
  ParameterCount count;
  for (const TensorSpec& spec : tensor_specs(config)) {
    const int64_t size = spec.shape.count();
    count.total += size;
    if (spec.role == Role::Embedding) count.embedding += size;
    if (spec.role == Role::Matrix || spec.role == Role::Head) count.matmul += size;
  }
  if (config.tied) count.matmul += config.output_vocab * config.hidden;
  return count;
}

}  // namespace quern
