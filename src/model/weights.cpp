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

Weights bind_weights(const Config& c, const WeightSource& source) {
  Weights weights;
  weights.layers.resize(static_cast<size_t>(c.layers));
  for (const TensorSpec& spec : tensor_specs(c)) {
    Layer unused;
    Layer& layer = spec.layer < 0 ? unused : weights.layers[static_cast<size_t>(spec.layer)];
    Linear* linear = nullptr;
    switch (spec.part) {
      case Part::Embedding:
        weights.embedding = source.matrix(spec);
        continue;
      case Part::Norm1:
        layer.norm_1 = source.vector(spec);
        continue;
      case Part::Norm2:
        layer.norm_2 = source.vector(spec);
        continue;
      case Part::QNorm:
        layer.q_norm = source.vector(spec);
        continue;
      case Part::KNorm:
        layer.k_norm = source.vector(spec);
        continue;
      case Part::FinalNorm:
        weights.final_norm = source.vector(spec);
        continue;
      case Part::Qkv: {
        // The three are rows of one tensor, one after the other.
        int64_t row = 0;
        const std::span<const float> bias =
            spec.role == Role::Bias ? source.vector(spec) : std::span<const float>{};
        const Weight fused = spec.role == Role::Bias ? Weight{} : source.matrix(spec);
        for (const auto& [part, rows] :
             {std::pair{&layer.q, c.query_dim()}, std::pair{&layer.k, c.kv_dim()},
              std::pair{&layer.v, c.kv_dim()}}) {
          if (spec.role != Role::Bias) {
            part->weight = fused.slice(row, rows);
          } else if (!bias.empty()) {
            part->bias = bias.subspan(static_cast<size_t>(row), static_cast<size_t>(rows));
          }
          row += rows;
        }
        continue;
      }
      case Part::Q:
        linear = &layer.q;
        break;
      case Part::K:
        linear = &layer.k;
        break;
      case Part::V:
        linear = &layer.v;
        break;
      case Part::AttnOut:
        linear = &layer.attn_out;
        break;
      case Part::Up:
        linear = &layer.up;
        break;
      case Part::Gate:
        linear = &layer.gate;
        break;
      case Part::Down:
        linear = &layer.down;
        break;
      case Part::LmHead:
        linear = &weights.lm_head;
        break;
    }
    if (spec.role == Role::Bias) {
      linear->bias = source.vector(spec);
    } else {
      linear->weight = source.matrix(spec);
    }
  }
  if (c.tied) weights.lm_head.weight = weights.embedding;
  return weights;
}

}  // namespace quern
