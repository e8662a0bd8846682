// The backward pass of one block: from the gradient of its output to that of its input, adding up
// those of its weights.
#include <cmath>

#include "model/backward.h"

namespace quern {

// d_x += the gradient of a norm's input x, or of what reads the stream without a norm.
void TrainingPass::norm_backward(const Norm& norm, const Norm& sink, MutRows d_x, ConstRows d_out,
                                 ConstRows x) {
  const Config& c = config_;
  if (norm.empty()) {
    run_.add(d_x, d_out, 1);
  } else if (c.norm == NormKind::Layer) {
    run_.layer_norm_backward(d_x, sink_->vector(sink.weight), sink_->vector(sink.bias), d_out, x,
                             norm.weight, c.norm_eps);
  } else {
    run_.rms_norm_backward(d_x, sink_->vector(sink.weight), d_out, x, norm.weight, c.norm_eps,
                           c.norm_offset);
  }
}

void TrainingPass::linear_backward(const Linear& linear, const Linear& sink, MutRows d_x,
                                   ConstRows d_out, ConstRows x, bool accumulate) {
  run_.matmul_backward_weight(sink_->matrix(sink.weight), sink_->vector(sink.bias), d_out, x);
  const LowRank& lora = linear.lora;
  if (lora.a.empty()) {
    run_.matmul_backward(d_x, d_out, linear.weight, accumulate);
    return;
  }
  // y = ... + b · inner with inner = scale · a · x. The product with x comes before d_x, which may
  // take x's place.
  const MutRows inner = {lora_.floats().data(), x.rows, lora.a.rows, lora.a.rows};
  const MutRows d_inner = {inner.data + x.rows * rank_, x.rows, lora.a.rows, lora.a.rows};
  const bool drops = lora_dropout_.scratch.data != nullptr;
  const ConstRows seen = drops ? ConstRows(lora_dropout_.of(run_, x, lora)) : x;
  if (!sink.lora.b.empty()) {
    const MatmulPart part = {inner, &lora.a, {}, false};
    run_.matmul(seen, {&part, 1});
    run_.scale(inner, lora.scale);
    run_.matmul_backward_weight(sink_->matrix(sink.lora.b), {}, d_out, inner);
  }
  run_.matmul_backward(d_inner, d_out, lora.b, false);
  run_.scale(d_inner, lora.scale);
  if (!sink.lora.a.empty()) {
    run_.matmul_backward_weight(sink_->matrix(sink.lora.a), {}, d_inner, seen);
  }
  run_.matmul_backward(d_x, d_out, linear.weight, accumulate);
  if (!drops) return run_.matmul_backward(d_x, d_inner, lora.a, true);
  const MutRows d_seen = {lora_dropout_.scratch.data, x.rows, x.cols, x.cols};
  run_.matmul_backward(d_seen, d_inner, lora.a, false);
  lora_dropout_.mask(run_, d_seen, lora);
  run_.add(d_x, d_seen, 1);
}

ConstRows TrainingPass::branch_gradient(const Linear& linear, ConstRows x, const Norm& after,
                                        const Norm& sink) {
  if (after.empty() && config_.residual_scale == 1) return rows_of(d_x_, x.rows);
  if (!after.empty()) {  // the norm's input is computed again
    apply_linear(run_, x, {{&linear, rows_of(branch_, x.rows)}}, scratch().lora, false,
                 scratch().dropout);
  }
  return through_norm_after(after, sink);
}

// With the branch in branch_, where a norm follows it.
ConstRows TrainingPass::through_norm_after(const Norm& after, const Norm& sink) {
  const int64_t tokens = batch_ * seq_;
  const MutRows d_x = rows_of(d_x_, tokens), d = rows_of(d_branch_, tokens);
  run_.copy(d, d_x);
  if (config_.residual_scale != 1) run_.scale(d, config_.residual_scale);
  if (after.empty()) return d;
  const MutRows d_out = rows_of(d_norm_, tokens);  // free here
  run_.copy(d_out, d);
  run_.fill(d, 0);
  norm_backward(after, sink, d, d_out, rows_of(branch_, tokens));
  return d;
}

// gate and up hold the activation's inputs and become their gradients.
void TrainingPass::activation_backward(const Mlp& mlp, MutRows gate, MutRows up,
                                       ConstRows d_gated) {
  if (mlp.gate.weight.empty()) {
    run_.activate_backward(up, {}, d_gated, up, {}, config_.activation);
  } else {
    run_.activate_backward(gate, up, d_gated, gate, up, config_.activation);
  }
}

void TrainingPass::gate_up_backward(const Mlp& mlp, const Mlp& sink, MutRows d_x, MutRows d_gate,
                                    MutRows d_up, ConstRows x, bool accumulate) {
  linear_backward(mlp.up, sink.up, d_x, d_up, x, accumulate);
  if (!mlp.gate.weight.empty()) linear_backward(mlp.gate, sink.gate, d_x, d_gate, x, true);
}

// The product behind the gate is cheaper to compute again than to keep.
void TrainingPass::mlp_backward(const Layer& layer, const Layer& sink, const Buffers& b) {
  const MlpBuffers& mlp = b.mlp;
  const bool plain = layer.mlp.gate.weight.empty();
  run_.activate(mlp.gated, plain ? mlp.up : mlp.gate, plain ? MutRows{} : mlp.up,
                config_.activation);
  const ConstRows d_out =
      branch_gradient(layer.mlp.down, mlp.gated, layer.norm_2_after, sink.norm_2_after);
  const MutRows d_gated = mlp.gated;  // takes its place once the weight's gradient is known
  linear_backward(layer.mlp.down, sink.mlp.down, d_gated, d_out, mlp.gated, false);
  activation_backward(layer.mlp, mlp.gate, mlp.up, d_gated);
  const Block block(run_, config_, layer, scratch());
  block.read_mlp_input(config_.parallel ? b.x_in : b.x_mid, mlp.norm);
  gate_up_backward(layer.mlp, sink.mlp, rows_of(d_norm_, mlp.norm.rows), mlp.gate, mlp.up, mlp.norm,
                   false);
}

// All is computed again, expert by expert: what each token's experts make would take many times the
// memory of an MLP.
void TrainingPass::experts_backward(const Layer& layer, const Layer& sink, const Buffers& b) {
  const Config& c = config_;
  const Experts& e = c.experts;
  const int64_t tokens = batch_ * seq_;
  const MlpBuffers& mlp = b.mlp;
  const MutRows logits = rows_of(router_, tokens), d_logits = rows_of(d_router_, tokens);
  const auto narrowed = [](MutRows rows, int64_t count, int64_t cols) {
    return MutRows{rows.data, count, cols, cols};
  };
  const Block block(run_, c, layer, scratch());
  block.read_mlp_input(c.parallel ? b.x_in : b.x_mid, mlp.norm);
  block.mix_experts(rows_of(branch_, tokens), mlp);  // chooses, too
  const ConstRows d_out = through_norm_after(layer.norm_2_after, sink.norm_2_after);
  const MutRows d_norm = rows_of(d_norm_, tokens);
  run_.fill(d_norm, 0);

  std::vector<float> d_weights(routing_.rows.size());
  const std::vector<float> ones(routing_.rows.size(), 1.0f);
  for (size_t index = 0; index < layer.experts.size(); ++index) {
    const int64_t begin = routing_.begins[index], count = routing_.begins[index + 1] - begin;
    if (count == 0) continue;
    const Mlp& expert = layer.experts[index];
    const Mlp none;
    const Mlp& expert_sink = sink.experts.empty() ? none : sink.experts[index];
    const auto first = static_cast<size_t>(begin), size = static_cast<size_t>(count);
    const std::span<const int32_t> own = std::span(routing_.rows).subspan(first, size);
    const MutRows x = rows_of(expert_rows_, count), y = rows_of(expert_out_, count);
    const MutRows d_y = rows_of(d_expert_, count);
    const MutRows gate = narrowed(mlp.gate, count, e.ffn), up = narrowed(mlp.up, count, e.ffn);
    const MutRows gated = narrowed(rows_of(expert_gated_, tokens), count, e.ffn);
    run_.gather_rows(x, mlp.norm, own);
    block.through_mlp(expert, x, gate, up, gated);
    apply_linear(run_, gated, {{&expert.down, y}}, scratch().lora, false, scratch().dropout);
    run_.gather_rows(d_y, d_out, own);
    for (int64_t i = 0; i < count; ++i) {
      const size_t place = first + static_cast<size_t>(i);
      const float weight = routing_.weights[place];
      float dot = 0;
      for (int64_t k = 0; k < c.hidden; ++k) {
        dot += y.row(i)[k] * d_y.row(i)[k];
        d_y.row(i)[k] *= weight;
      }
      d_weights[place] = dot;
    }
    linear_backward(expert.down, expert_sink.down, gated, d_y, gated, false);
    activation_backward(expert, gate, up, gated);
    gate_up_backward(expert, expert_sink, y, gate, up, x, false);
    run_.add_rows(d_norm, y, own, std::span(ones).first(size));
  }
  routing_.backward(d_logits, logits, d_weights, e.normalized);
  linear_backward(layer.router, sink.router, d_norm, d_logits, mlp.norm, true);
  if (e.shared_ffn == 0) return;

  // out = sigmoid(share) · shared MLP.
  const MutRows gate = narrowed(mlp.gate, tokens, e.shared_ffn);
  const MutRows up = narrowed(mlp.up, tokens, e.shared_ffn);
  const MutRows gated = narrowed(rows_of(expert_gated_, tokens), tokens, e.shared_ffn);
  const MutRows share = narrowed(d_logits, tokens, 1), y = rows_of(expert_out_, tokens);
  const MutRows d_y = rows_of(d_expert_, tokens);
  apply_linear(run_, mlp.norm, {{&layer.shared_router, share}}, scratch().lora, false,
               scratch().dropout);
  block.through_mlp(layer.mlp, mlp.norm, gate, up, gated);
  apply_linear(run_, gated, {{&layer.mlp.down, y}}, scratch().lora, false, scratch().dropout);
  run_.copy(d_y, d_out);
  for (int64_t i = 0; i < tokens; ++i) {
    const float open = 1 / (1 + std::exp(-share.row(i)[0]));
    float dot = 0;
    for (int64_t k = 0; k < c.hidden; ++k) {
      dot += y.row(i)[k] * d_y.row(i)[k];
      d_y.row(i)[k] *= open;
    }
    share.row(i)[0] = dot * open * (1 - open);
  }
  linear_backward(layer.shared_router, sink.shared_router, d_norm, share, mlp.norm, true);
  linear_backward(layer.mlp.down, sink.mlp.down, gated, d_y, gated, false);
  activation_backward(layer.mlp, gate, up, gated);
  gate_up_backward(layer.mlp, sink.mlp, d_norm, gate, up, mlp.norm, true);
}

// b.qkv.qkv holds the gradients behind norms and rotation, and those of the projections at the end;
// d_norm_ gets what they read.
void TrainingPass::qkv_backward(const Layer& layer, const Layer& sink, int64_t index,
                                const Buffers& b) {
  const Config& c = config_;
  const int64_t query_dim = c.query_dim(), kv_dim = c.kv_dim();
  const MutRows d_qkv = b.qkv.qkv, d_norm = rows_of(d_norm_, d_qkv.rows);
  const QkvHeads d = split_heads(c, d_qkv);
  const Angles turned = angles(index);
  if (turned.cos.data != nullptr) {
    run_.rope_backward(d.q, turned.cos, turned.sin);
    run_.rope_backward(d.k, turned.cos, turned.sin);
  }
  if (c.qk_norm != QkNorm::None) {
    // A norm over all heads is one over a single wide head.
    const auto heads = [&](MutRows rows, int64_t begin, int64_t cols) {
      const int64_t width = c.qk_norm == QkNorm::Whole ? cols : c.head_dim;
      return MutHeads{rows.data + begin, rows.rows, cols / width, width, rows.stride};
    };
    run_.rms_norm_heads_backward(heads(d_qkv, 0, query_dim), sink_->vector(sink.q_norm),
                                 heads(b.qkv.qk_raw, 0, query_dim), layer.q_norm, c.norm_eps,
                                 c.norm_offset);
    run_.rms_norm_heads_backward(heads(d_qkv, query_dim, kv_dim), sink_->vector(sink.k_norm),
                                 heads(b.qkv.qk_raw, query_dim, kv_dim), layer.k_norm, c.norm_eps,
                                 c.norm_offset);
  }
  if (c.clip_qkv > 0) run_.clamp_backward(d_qkv, b.qkv.qk_raw, c.clip_qkv);
  if (layer.norm_1.empty()) {
    run_.copy(b.qkv.norm, b.x_in);
  } else {
    normalize(run_, c, b.qkv.norm, b.x_in, layer.norm_1);
  }
  linear_backward(layer.q, sink.q, d_norm, d_qkv.columns(0, query_dim), b.qkv.norm, false);
  linear_backward(layer.k, sink.k, d_norm, d_qkv.columns(query_dim, kv_dim), b.qkv.norm, true);
  linear_backward(layer.v, sink.v, d_norm, d_qkv.columns(query_dim + kv_dim, kv_dim), b.qkv.norm,
                  true);
}

// d_x_ holds the gradient of the block's output and becomes that of its input. Norms are cheaper to
// compute again than to keep.
void TrainingPass::block_backward(const Layer& layer, const Layer& sink, int64_t index,
                                  const Dropout& dropout) {
  const Config& c = config_;
  const int64_t tokens = batch_ * seq_;
  const Buffers b = buffers(index);
  const MutRows d_x = rows_of(d_x_, tokens), d_norm = rows_of(d_norm_, tokens);
  const Norm& mlp_norm = c.mlp_norm ? layer.norm_2 : layer.norm_1;
  const Norm& mlp_norm_sink = c.mlp_norm ? sink.norm_2 : sink.norm_1;

  if (c.has_experts(index)) {
    experts_backward(layer, sink, b);
  } else {
    mlp_backward(layer, sink, b);
  }
  const auto leave_mlp = [&](ConstRows d_out) {
    norm_backward(mlp_norm, mlp_norm_sink, d_x, d_out, c.parallel ? b.x_in : b.x_mid);
  };
  if (!c.parallel) leave_mlp(d_norm);

  const MutRows d_attended = rows_of(d_attended_, tokens);
  const QkvHeads d = split_heads(c, b.qkv.qkv);  // takes their place
  const ConstRows d_out =
      branch_gradient(layer.attn_out, b.attended, layer.norm_1_after, sink.norm_1_after);
  linear_backward(layer.attn_out, sink.attn_out, d_attended, d_out, b.attended, false);
  // Of parallel branches each has the gradient of the output, without what the other adds.
  if (c.parallel) leave_mlp(d_norm);
  run_.dropout(d_attended, of_layer(dropout, index));
  run_.attention_training_backward(
      d.q, d.k, d.v, query_heads(c, d_attended), query_heads(c, b.attended),
      rows_at(saved(index).log_sum, c.heads), d.q, d.k, d.v, attention(index));
  qkv_backward(layer, sink, index, b);
  norm_backward(layer.norm_1, sink.norm_1, d_x, d_norm, b.x_in);
}

}  // namespace quern
