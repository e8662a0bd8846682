#include "model/weights.h"

#include <algorithm>

namespace quern {

int64_t Weights::max_lora_rank() const noexcept {
  int64_t rank = lm_head.lora.a.rows;
  for (const Layer& layer : layers) {
    for (const Linear* linear :
         {&layer.q, &layer.k, &layer.v, &layer.attn_out, &layer.up, &layer.gate, &layer.down}) {
      rank = std::max(rank, linear->lora.a.rows);
    }
  }
  return rank;
}

std::vector<LinearSlice> linears_of(Weights& weights, const TensorSpec& spec, const Config& c) {
  if (spec.part == Part::LmHead) return {{&weights.lm_head, 0, c.output_vocab}};
  if (spec.layer < 0) return {};
  Layer& layer = weights.layers[static_cast<size_t>(spec.layer)];
  switch (spec.part) {
    case Part::Qkv:
      return {{&layer.q, 0, c.query_dim()},
              {&layer.k, c.query_dim(), c.kv_dim()},
              {&layer.v, c.query_dim() + c.kv_dim(), c.kv_dim()}};
    case Part::Q:
      return {{&layer.q, 0, c.query_dim()}};
    case Part::K:
      return {{&layer.k, 0, c.kv_dim()}};
    case Part::V:
      return {{&layer.v, 0, c.kv_dim()}};
    case Part::AttnOut:
      return {{&layer.attn_out, 0, c.hidden}};
    case Part::Up:
      return {{&layer.up, 0, c.ffn}};
    case Part::Gate:
      return {{&layer.gate, 0, c.ffn}};
    case Part::Down:
      return {{&layer.down, 0, c.hidden}};
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
  for (const LinearSlice& slice : linears_of(weights, spec, c)) {
    if (spec.role == Role::LoraA) {
      slice.linear->lora.a = matrix;  // shared by q, k and v of a fused tensor
      slice.linear->lora.scale = spec.scale;
      slice.linear->lora.id = static_cast<int32_t>(spec.layer * 16 + static_cast<int>(spec.part));
      continue;
    }
    Weight& to = spec.role == Role::LoraB ? slice.linear->lora.b : slice.linear->weight;
    to = matrix.slice(slice.first_row, slice.rows);
  }
}

void bind_vector(Weights& weights, const TensorSpec& spec, const Config& c,
                 std::span<const float> values) {
  if (values.empty()) return;
  if (spec.role == Role::Bias) {
    for (const LinearSlice& slice : linears_of(weights, spec, c)) {
      slice.linear->bias =
          values.subspan(static_cast<size_t>(slice.first_row), static_cast<size_t>(slice.rows));
    }
    return;
  }
  if (spec.part == Part::FinalNorm) {
    weights.final_norm = values;
    return;
  }
  Layer& layer = weights.layers[static_cast<size_t>(spec.layer)];
  std::span<const float>& field = spec.part == Part::Norm1   ? layer.norm_1
                                  : spec.part == Part::Norm2 ? layer.norm_2
                                  : spec.part == Part::QNorm ? layer.q_norm
                                                             : layer.k_norm;
  field = values;
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
