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

void apply_linear(Backend& run, ConstRows x, std::initializer_list<LinearPart> parts, MutRows lora,
                  bool accumulate) {
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
    run.matmul(x, {&down, 1});
    const MatmulPart up = {part.out, &update.b, {}, true};
    run.matmul(inner, {&up, 1});
  }
}

void block_forward(Backend& run, const Config& c, const Layer& layer, const BlockBuffers& b,
                   ConstRows cos, ConstRows sin, FunctionRef<void(const QkvHeads&)> attend,
                   BlockProbe probe) {
  const int64_t query_dim = c.query_dim(), kv_dim = c.kv_dim();
  run.rms_norm(b.norm_1, b.x_in, layer.norm_1, c.norm_eps);
  probe("ln_1", b.norm_1);
  const MutRows k = b.qkv.columns(query_dim, kv_dim);
  const MutRows v = b.qkv.columns(query_dim + kv_dim, kv_dim);
  QkvHeads heads = split_heads(c, b.qkv);
  if (b.kept == nullptr) {
    apply_linear(run, b.norm_1,
                 {{&layer.q, b.qkv.columns(0, query_dim)}, {&layer.k, k}, {&layer.v, v}}, b.lora);
    probe("c_attn", b.qkv);
  } else {
    apply_linear(run, b.norm_1, {{&layer.k, k}, {&layer.v, v}}, b.lora);
    heads.q.tokens = b.kept->norm.rows;
    run.gather_rows(b.kept->norm, b.norm_1, b.kept->rows);
    const MutRows q = b.qkv.columns(0, query_dim).slice(0, heads.q.tokens);
    apply_linear(run, b.kept->norm, {{&layer.q, q}}, b.lora);
  }
  if (c.qk_norm) {
    if (b.qk_raw.data != nullptr) run.copy(b.qk_raw, b.qkv.columns(0, query_dim + kv_dim));
    run.rms_norm_heads(heads.q, layer.q_norm, c.norm_eps);
    run.rms_norm_heads(heads.k, layer.k_norm, c.norm_eps);
  }
  run.rope(heads.q, b.kept == nullptr ? cos : b.kept->cos, b.kept == nullptr ? sin : b.kept->sin);
  run.rope(heads.k, cos, sin);
  attend(heads);
  if (b.x_mid.rows == 0) return;
  probe("attn_context", b.attended);
  if (b.kept != nullptr) {
    run.gather_rows(b.x_mid, b.x_in, b.kept->rows);
  } else if (b.x_mid.data != b.x_in.data) {
    run.copy(b.x_mid, b.x_in);
  }
  apply_linear(run, b.attended, {{&layer.attn_out, b.x_mid}}, b.lora, /*accumulate=*/true);

  run.rms_norm(b.norm_2, b.x_mid, layer.norm_2, c.norm_eps);
  probe("ln_2", b.norm_2);
  apply_linear(run, b.norm_2, {{&layer.up, b.up}, {&layer.gate, b.gate}}, b.lora);
  probe("w1", b.up);
  probe("w2", b.gate);
  run.silu_mul(b.swiglu, b.gate, b.up);
  if (b.x_out.data != b.x_mid.data) run.copy(b.x_out, b.x_mid);
  apply_linear(run, b.swiglu, {{&layer.down, b.x_out}}, b.lora, /*accumulate=*/true);
}

}  // namespace quern
