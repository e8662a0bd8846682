#include "model/weights.h"

#include <algorithm>

namespace quern {

int64_t Weights::max_lora_rank() const noexcept {
  int64_t rank = lm_head.lora.a.rows;
  const auto take = [&](const Linear& linear) { rank = std::max(rank, linear.lora.a.rows); };
  const auto take_mlp = [&](const Mlp& mlp) {
    take(mlp.up);
    take(mlp.gate);
    take(mlp.down);
  };
  for (const Layer& layer : layers) {
    for (const Linear* linear :
         {&layer.q, &layer.k, &layer.v, &layer.attn_out, &layer.router, &layer.shared_router}) {
      take(*linear);
    }
    take_mlp(layer.mlp);
    std::ranges::for_each(layer.experts, take_mlp);
  }
  return rank;
}

std::vector<LinearSlice> linears_of(Weights& weights, const TensorSpec& spec, const Config& c) {
  if (spec.part == Part::LmHead) return {{&weights.lm_head, 0, c.output_vocab}};
  if (spec.layer < 0) return {};
  Layer& layer = weights.layers[static_cast<size_t>(spec.layer)];
  const auto whole = [&](Linear& linear) {
    const int64_t rows = spec.role == Role::LoraA ? 0 : spec.shape[0];
    return std::vector<LinearSlice>{{&linear, 0, rows}};
  };
  const auto expert = [&]() -> Mlp& {
    if (layer.experts.empty()) layer.experts.resize(static_cast<size_t>(c.experts.count));
    return layer.experts[static_cast<size_t>(spec.expert)];
  };
  switch (spec.part) {
    case Part::Qkv:
      return {{&layer.q, 0, c.query_dim()},
              {&layer.k, c.query_dim(), c.kv_dim()},
              {&layer.v, c.query_dim() + c.kv_dim(), c.kv_dim()}};
    case Part::GateUp:
      return {{&layer.mlp.gate, 0, c.ffn}, {&layer.mlp.up, c.ffn, c.ffn}};
    case Part::Q:
      return whole(layer.q);
    case Part::K:
      return whole(layer.k);
    case Part::V:
      return whole(layer.v);
    case Part::AttnOut:
      return whole(layer.attn_out);
    case Part::Up:
      return whole(layer.mlp.up);
    case Part::Gate:
      return whole(layer.mlp.gate);
    case Part::Down:
      return whole(layer.mlp.down);
    case Part::Router:
      return whole(layer.router);
    case Part::SharedRouter:
      return whole(layer.shared_router);
    case Part::ExpertUp:
      return whole(expert().up);
    case Part::ExpertGate:
      return whole(expert().gate);
    case Part::ExpertDown:
      return whole(expert().down);
    default:
      return {};
  }
}

void bind_matrix(Weights& weights, const TensorSpec& spec, const Config& c, const Weight& matrix) {
  if (matrix.empty()) return;
  if (spec.part == Part::Embedding) {
    weights.embedding = matrix;
    if (c.tied) weights.lm_head.weight = matrix;
    return;
  }
  if (spec.part == Part::Positions) {
    weights.positions = matrix;
    return;
  }
  for (const LinearSlice& slice : linears_of(weights, spec, c)) {
    if (spec.role == Role::LoraA) {
      slice.linear->lora.a = matrix;  // shared by q, k and v of a fused tensor
      slice.linear->lora.scale = spec.scale;
      slice.linear->lora.id = static_cast<int32_t>(spec.layer * 32 + static_cast<int>(spec.part));
      continue;
    }
    Weight& to = spec.role == Role::LoraB ? slice.linear->lora.b : slice.linear->weight;
    to = matrix.slice(slice.first_row, slice.rows);
  }
}

std::span<const float>* norm_field(Weights& weights, const TensorSpec& spec) {
  const auto part_of = [&](Norm& norm) {
    return spec.role == Role::Bias ? &norm.bias : &norm.weight;
  };
  const auto layer = [&]() -> Layer& { return weights.layers[static_cast<size_t>(spec.layer)]; };
  switch (spec.part) {
    case Part::EmbeddingNorm:
      return part_of(weights.embedding_norm);
    case Part::FinalNorm:
      return part_of(weights.final_norm);
    case Part::Norm1:
      return part_of(layer().norm_1);
    case Part::Norm1After:
      return part_of(layer().norm_1_after);
    case Part::Norm2:
      return part_of(layer().norm_2);
    case Part::Norm2After:
      return part_of(layer().norm_2_after);
    case Part::QNorm:
      return &layer().q_norm;
    case Part::KNorm:
      return &layer().k_norm;
    default:
      return nullptr;
  }
}

void bind_vector(Weights& weights, const TensorSpec& spec, const Config& c,
                 std::span<const float> values) {
  if (values.empty()) return;
  if (spec.role == Role::Bias) {
    const std::vector<LinearSlice> slices = linears_of(weights, spec, c);
    for (const LinearSlice& slice : slices) {
      slice.linear->bias =
          values.subspan(static_cast<size_t>(slice.first_row), static_cast<size_t>(slice.rows));
    }
    if (!slices.empty()) return;
  }
  if (std::span<const float>* field = norm_field(weights, spec)) *field = values;
}

Weights bind_weights(const Config& c, const WeightSource& source) {
  Weights weights;
  weights.layers.resize(static_cast<size_t>(c.layers));
  for (const TensorSpec& spec : tensor_specs(c)) {
    if (spec.shape.rank() == 2) {
      bind_matrix(weights, spec, c, source.matrix(spec));
    } else {
      bind_vector(weights, spec, c, source.vector(spec));
    }
  }
  return weights;
}

}  // namespace quern
