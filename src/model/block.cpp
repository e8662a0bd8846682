#include "model/block.h"

#include <array>

namespace quern {

QkvHeads split_heads(const Config& c, MutRows qkv) noexcept {
  const auto heads = [&](int64_t begin, int64_t count) {
    return MutHeads{qkv.data + begin, qkv.rows, count, c.head_dim, qkv.stride};
  };
  return {heads(0, c.heads), heads(c.query_dim(), c.kv_heads),
          heads(c.query_dim() + c.kv_dim(), c.kv_heads)};
}

MutHeads query_heads(const Config& c, MutRows rows) noexcept {
  return {rows.data, rows.rows, c.heads, c.head_dim, rows.stride};
}

void LoraDropout::mask(Backend& run, MutRows x, const LowRank& update) const {
  // Streams of the model's own dropout are numbers of layers, below 2^15.
  Dropout own = dropout;
  own.stream = dropout.stream << 16 | uint64_t{0x8000} | static_cast<uint64_t>(update.id & 0x7fff);
  run.dropout(x, own);
}

MutRows LoraDropout::of(Backend& run, ConstRows x, const LowRank& update) const {
  const MutRows out = {scratch.data, x.rows, x.cols, x.cols};
  run.copy(out, x);
  mask(run, out, update);
  return out;
}

void apply_linear(Backend& run, ConstRows x, std::initializer_list<LinearPart> parts, MutRows lora,
                  bool accumulate, const LoraDropout* dropout) {
  std::array<MatmulPart, 4> products;
  size_t count = 0;
  for (const LinearPart& part : parts) {
    products[count++] = {part.out, &part.linear->weight, part.linear->bias, accumulate};
  }
  run.matmul(x, std::span(products).first(count));
  for (const LinearPart& part : parts) {
    const LowRank& update = part.linear->lora;
    if (update.a.empty()) continue;
    const MutRows inner = {lora.data, x.rows, update.a.rows, update.a.rows};
    const MatmulPart down = {inner, &update.a, {}, false};
    run.matmul(dropout != nullptr ? ConstRows(dropout->of(run, x, update)) : x, {&down, 1});
    if (update.scale != 1) run.scale(inner, update.scale);
    const MatmulPart up = {part.out, &update.b, {}, true};
    run.matmul(inner, {&up, 1});
  }
}

void Block::finish_heads(MutHeads heads, std::span<const float> norm, const Angles& angles) const {
  if (config_.qk_norm) run_.rms_norm_heads(heads, norm, config_.norm_eps);
  run_.rope(heads, angles.cos, angles.sin);
}

QkvHeads Block::qkv(ConstRows x, const QkvBuffers& b) const {
  const int64_t query_dim = config_.query_dim(), kv_dim = config_.kv_dim();
  run_.rms_norm(b.norm, x, layer_.norm_1, config_.norm_eps);
  probe_("ln_1", b.norm);
  apply_linear(run_, b.norm,
               {{&layer_.q, b.qkv.columns(0, query_dim)},
                {&layer_.k, b.qkv.columns(query_dim, kv_dim)},
                {&layer_.v, b.qkv.columns(query_dim + kv_dim, kv_dim)}},
               lora_, false, dropout_);
  probe_("c_attn", b.qkv);
  if (b.qk_raw.data != nullptr) run_.copy(b.qk_raw, b.qkv.columns(0, query_dim + kv_dim));
  const QkvHeads heads = split_heads(config_, b.qkv);
  finish_heads(heads.q, layer_.q_norm, b.angles);
  finish_heads(heads.k, layer_.k_norm, b.angles);
  return heads;
}

QkvHeads Block::keys_values(ConstRows x, const QkvBuffers& b) const {
  const int64_t query_dim = config_.query_dim(), kv_dim = config_.kv_dim();
  run_.rms_norm(b.norm, x, layer_.norm_1, config_.norm_eps);
  apply_linear(run_, b.norm,
               {{&layer_.k, b.qkv.columns(query_dim, kv_dim)},
                {&layer_.v, b.qkv.columns(query_dim + kv_dim, kv_dim)}},
               lora_, false, dropout_);
  const QkvHeads heads = split_heads(config_, b.qkv);
  finish_heads(heads.k, layer_.k_norm, b.angles);
  return heads;
}

MutHeads Block::queries(ConstRows x, const QkvBuffers& b) const {
  run_.rms_norm(b.norm, x, layer_.norm_1, config_.norm_eps);
  apply_linear(run_, b.norm, {{&layer_.q, b.qkv.columns(0, config_.query_dim())}}, lora_, false,
               dropout_);
  const MutHeads q = split_heads(config_, b.qkv).q;
  finish_heads(q, layer_.q_norm, b.angles);
  return q;
}

void Block::attention_output(MutRows x_mid, ConstRows x_in, ConstRows attended) const {
  probe_("attn_context", attended);
  if (x_mid.data != x_in.data) run_.copy(x_mid, x_in);
  apply_linear(run_, attended, {{&layer_.attn_out, x_mid}}, lora_, /*accumulate=*/true, dropout_);
}

void Block::gated(ConstRows x_mid, const MlpBuffers& b) const {
  run_.rms_norm(b.norm, x_mid, layer_.norm_2, config_.norm_eps);
  probe_("ln_2", b.norm);
  apply_linear(run_, b.norm, {{&layer_.up, b.up}, {&layer_.gate, b.gate}}, lora_, false, dropout_);
  probe_("w1", b.up);
  probe_("w2", b.gate);
  run_.silu_mul(b.gated, b.gate, b.up);
}

void Block::down(MutRows x_out, ConstRows x_mid, ConstRows gated) const {
  if (x_out.data != x_mid.data) run_.copy(x_out, x_mid);
  apply_linear(run_, gated, {{&layer_.down, x_out}}, lora_, /*accumulate=*/true, dropout_);
}

void Block::feed_forward(MutRows x_out, ConstRows x_mid, const MlpBuffers& b) const {
  gated(x_mid, b);
  down(x_out, x_mid, b.gated);
}

}  // namespace quern
