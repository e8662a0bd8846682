#include "model/tensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "model/families.h"

namespace quern {
namespace {

// A GGUF file may keep apart what the family's own files fuse, or the other way round.
std::string_view or_else(std::string_view name, std::string_view usual) noexcept {
  return name.empty() ? usual : name;
}

}  // namespace

std::vector<TensorSpec> tensor_specs(const Config& c) {
  const TensorNames& names = row_of(c.family).names;
  std::vector<TensorSpec> specs;
  int64_t layer = -1, expert = 0;
  std::string prefix;  // of the block or the expert
  const auto add = [&](std::string_view name, Part part, Role role, Shape shape, bool bias) {
    const std::string module = prefix + std::string(name);
    const int64_t rows = shape[0];
    specs.push_back({module + ".weight", module, shape, part, role, layer, expert});
    if (bias) {
      specs.push_back({module + ".bias", module, Shape{rows}, part, Role::Bias, layer, expert});
    }
  };
  const auto norm = [&](std::string_view name, Part part, int64_t dim) {
    add(name, part, Role::Norm, {dim}, c.norm_bias);
  };
  const auto head_norm = [&](std::string_view name, Part part, int64_t dim) {
    add(name, part, Role::Norm, {dim}, false);
  };
  const auto matrix = [&](std::string_view name, Part part, int64_t rows, int64_t cols, bool bias) {
    add(name, part, Role::Matrix, {rows, cols}, bias);
  };

  add(names.embedding, Part::Embedding, Role::Embedding, {c.vocab, c.hidden}, false);
  if (c.learned_positions > 0) {
    add(names.positions, Part::Positions, Role::Embedding, {c.learned_positions, c.hidden}, false);
  }
  if (c.embedding_norm) norm(names.embedding_norm, Part::EmbeddingNorm, c.hidden);
  const bool two_parallel = c.parallel && c.mlp_norm && !names.norm_1_parallel.empty();
  for (layer = 0; layer < c.layers; ++layer) {
    const std::string block = fmt::format("{}.{}.", names.blocks, layer);
    prefix = block;
    if (c.norms_before) {
      norm(two_parallel ? names.norm_1_parallel : names.norm_1, Part::Norm1, c.hidden);
    }
    if (c.qkv_order != QkvOrder::Separate) {
      matrix(or_else(names.qkv, "self_attn.qkv_proj"), Part::Qkv, c.qkv_dim(), c.hidden,
             c.qkv_bias);
    } else {
      matrix(or_else(names.q, "self_attn.q_proj"), Part::Q, c.query_dim(), c.hidden, c.qkv_bias);
      matrix(or_else(names.k, "self_attn.k_proj"), Part::K, c.kv_dim(), c.hidden, c.qkv_bias);
      matrix(or_else(names.v, "self_attn.v_proj"), Part::V, c.kv_dim(), c.hidden, c.qkv_bias);
    }
    if (c.qk_norm != QkNorm::None) {
      const bool whole = c.qk_norm == QkNorm::Whole;
      head_norm(names.q_norm, Part::QNorm, whole ? c.query_dim() : c.head_dim);
      head_norm(names.k_norm, Part::KNorm, whole ? c.kv_dim() : c.head_dim);
    }
    matrix(names.attn_out, Part::AttnOut, c.hidden, c.query_dim(), c.out_bias);
    if (c.norms_after) norm(names.norm_1_after, Part::Norm1After, c.hidden);
    if (c.norms_before && c.mlp_norm) {
      norm(two_parallel ? names.norm_2_parallel : names.norm_2, Part::Norm2, c.hidden);
    }
    if (!c.has_experts(layer)) {
      if (c.fused_gate_up) {
        matrix(or_else(names.gate_up, "mlp.gate_up_proj"), Part::GateUp, 2 * c.ffn, c.hidden,
               c.mlp_bias);
      } else {
        matrix(or_else(names.up, "mlp.up_proj"), Part::Up, c.ffn, c.hidden, c.mlp_bias);
        if (c.gated) {
          matrix(or_else(names.gate, "mlp.gate_proj"), Part::Gate, c.ffn, c.hidden, c.mlp_bias);
        }
      }
      matrix(names.down, Part::Down, c.hidden, c.ffn, c.mlp_bias);
    } else {
      const Experts& e = c.experts;
      matrix(names.router, Part::Router, e.count, c.hidden, false);
      for (expert = 0; expert < e.count; ++expert) {
        prefix = fmt::format("{}{}.{}.", block, names.experts, expert);
        matrix(names.expert_up, Part::ExpertUp, e.ffn, c.hidden, false);
        matrix(names.expert_gate, Part::ExpertGate, e.ffn, c.hidden, false);
        matrix(names.expert_down, Part::ExpertDown, c.hidden, e.ffn, false);
      }
      expert = 0;
      prefix = block;
      if (e.shared_ffn > 0) {
        matrix(names.shared_up, Part::Up, e.shared_ffn, c.hidden, false);
        matrix(names.shared_gate, Part::Gate, e.shared_ffn, c.hidden, false);
        matrix(names.shared_down, Part::Down, c.hidden, e.shared_ffn, false);
        matrix(names.shared_router, Part::SharedRouter, 1, c.hidden, false);
      }
    }
    if (c.norms_after) norm(names.norm_2_after, Part::Norm2After, c.hidden);
  }
  layer = -1;
  prefix.clear();
  norm(names.final_norm, Part::FinalNorm, c.hidden);
  if (!c.tied) {
    add(names.lm_head, Part::LmHead, Role::Head, {c.output_vocab, c.hidden}, c.head_bias);
  }
  return specs;
}

std::vector<TensorSpec> adapter_specs(
    const Config& config, const std::function<AdapterShape(const TensorSpec& matrix)>& choose) {
  std::vector<TensorSpec> specs;
  for (const TensorSpec& spec : tensor_specs(config)) {
    if (!spec.is_linear()) continue;
    const AdapterShape adapter = choose(spec);
    if (adapter.rank <= 0) continue;
    const auto add = [&](std::string_view factor, Role role, Shape shape) {
      TensorSpec own = spec;
      own.module = fmt::format("base_model.model.{}.{}", spec.module, factor);
      own.name = own.module + ".weight";
      own.shape = shape;
      own.role = role;
      own.scale = adapter.scale;
      specs.push_back(std::move(own));
    };
    add("lora_A", Role::LoraA, {adapter.rank, spec.shape[1]});
    add("lora_B", Role::LoraB, {spec.shape[0], adapter.rank});
  }
  return specs;
}

namespace {

// The file's row for row `row` of q or k: the file has the two of a rotated pair side by side.
int64_t row_of_pairs(int64_t row, const Config& c) noexcept {
  if (c.rope_pairs == RopePairs::Halves) return row;
  const int64_t dim = row % c.head_dim, half = c.rotary_dim / 2;
  if (dim >= c.rotary_dim) return row;
  return row - dim + (dim < half ? 2 * dim : 2 * (dim - half) + 1);
}

// Row of q, k and v side by side, as QkvOrder::Grouped has it.
int64_t row_of_groups(int64_t row, const Config& c) noexcept {
  const int64_t per_group = c.heads / c.kv_heads, width = (per_group + 2) * c.head_dim;
  if (row < c.query_dim()) {
    const int64_t head = row / c.head_dim;
    return head / per_group * width + head % per_group * c.head_dim + row % c.head_dim;
  }
  row -= c.query_dim();
  const bool value = row >= c.kv_dim();
  if (value) row -= c.kv_dim();
  return row / c.head_dim * width + (per_group + (value ? 1 : 0)) * c.head_dim + row % c.head_dim;
}

// The file's row of a row in the model's order.
int64_t file_row(const TensorSpec& spec, const Config& c, int64_t row) noexcept {
  if (spec.role == Role::LoraA) return row;
  switch (spec.part) {
    case Part::Q:
    case Part::K:
      return row_of_pairs(row, c);
    case Part::Qkv:
      if (row < c.query_dim() + c.kv_dim()) row = row_of_pairs(row, c);
      return c.qkv_order == QkvOrder::Grouped ? row_of_groups(row, c) : row;
    default:
      return row;
  }
}

bool transposed(const TensorSpec& spec, const Config& c) noexcept {
  return spec.role == Role::Matrix && c.transposed;
}

}  // namespace

Shape file_shape(const TensorSpec& spec, const Config& config) {
  if (!transposed(spec, config)) return spec.shape;
  return {spec.shape[1], spec.shape[0]};
}

bool in_file_order(const TensorSpec& spec, const Config& c) noexcept {
  if (transposed(spec, c)) return false;
  if (spec.role == Role::LoraA) return true;
  const bool qkv = spec.part == Part::Qkv;
  if (!qkv && spec.part != Part::Q && spec.part != Part::K) return true;
  if (c.rope_pairs == RopePairs::Adjacent && c.rotary_dim > 0) return false;
  return !qkv || c.qkv_order != QkvOrder::Grouped || c.kv_heads == 1;
}

void reorder_tensor(std::span<std::byte> out, std::span<const std::byte> in, const TensorSpec& spec,
                    const Config& config, size_t size, TensorOrder to) {
  const int64_t rows = spec.shape[0], cols = spec.shape.rank() == 2 ? spec.shape[1] : 1;
  const bool turned = transposed(spec, config), ours = to == TensorOrder::Ours;
  const auto width = static_cast<size_t>(cols) * size;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t there = file_row(spec, config, row);
    if (!turned) {
      const auto our = static_cast<size_t>(row) * width,
                 theirs = static_cast<size_t>(there) * width;
      std::memcpy(out.data() + (ours ? our : theirs), in.data() + (ours ? theirs : our), width);
      continue;
    }
    for (int64_t col = 0; col < cols; ++col) {
      const auto our = static_cast<size_t>(row * cols + col) * size;
      const auto theirs = static_cast<size_t>(col * rows + there) * size;
      std::memcpy(out.data() + (ours ? our : theirs), in.data() + (ours ? theirs : our), size);
    }
  }
}

ParameterCount count_parameters(const Config& config) {
  ParameterCount count;
  for (const TensorSpec& spec : tensor_specs(config)) {
    const int64_t size = spec.shape.count();
    const bool of_expert = spec.part == Part::ExpertUp || spec.part == Part::ExpertGate ||
                           spec.part == Part::ExpertDown;
    const bool meets = !of_expert || spec.expert < config.experts.per_token;
    count.total += size;
    if (meets) count.active += size;
    if (spec.role == Role::Embedding) count.embedding += size;
    if (!spec.is_linear()) continue;
    count.matmul += size;
    if (meets) count.active_matmul += size;
  }
  if (config.tied) {
    count.matmul += config.output_vocab * config.hidden;
    count.active_matmul += config.output_vocab * config.hidden;
  }
  return count;
}

}  // namespace quern
