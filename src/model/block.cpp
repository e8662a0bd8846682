#include "model/block.h"

#include <algorithm>
#include <array>
#include <cmath>

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

int64_t mlp_width(const Config& c) noexcept {
  return std::max({c.ffn, c.experts.ffn, c.experts.shared_ffn});
}

bool needs_branch(const Config& c) noexcept {
  return c.norms_after || c.residual_scale != 1 || c.experts.count > 0;
}

void normalize(Backend& run, const Config& c, MutRows out, ConstRows x, const Norm& norm) {
  if (c.norm == NormKind::Layer) {
    run.layer_norm(out, x, norm.weight, norm.bias, c.norm_eps);
  } else {
    run.rms_norm(out, x, norm.weight, c.norm_eps, c.norm_offset);
  }
}

void embed_tokens(Backend& run, const Config& c, const Weights& w, MutRows x,
                  std::span<const int32_t> ids, std::span<const int32_t> positions,
                  MutRows scratch) {
  run.embed(x, w.embedding, ids);
  if (c.embed_scale != 1) run.scale(x, c.embed_scale);
  if (!w.positions.empty()) {
    run.embed(scratch, w.positions, positions);
    run.add(x, scratch, 1);
  }
  if (!w.embedding_norm.empty()) normalize(run, c, x, x, w.embedding_norm);
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

namespace {

// out += scale · b · (a · x), `seen` being what of x the update sees.
void add_update(Backend& run, MutRows out, ConstRows seen, const LowRank& update, MutRows lora) {
  const MutRows inner = {lora.data, seen.rows, update.a.rows, update.a.rows};
  const MatmulPart down = {inner, &update.a, {}, false};
  run.matmul(seen, {&down, 1});
  if (update.scale != 1) run.scale(inner, update.scale);
  const MatmulPart up = {out, &update.b, {}, true};
  run.matmul(inner, {&up, 1});
}

}  // namespace

void apply_linear(Backend& run, ConstRows x, std::initializer_list<LinearPart> parts, MutRows lora,
                  bool accumulate, const LoraDropout* dropout,
                  std::span<const AdapterRows> adapters) {
  std::array<MatmulPart, 4> products;
  size_t count = 0;
  for (const LinearPart& part : parts) {
    if (part.linear->weight.empty()) continue;
    products[count++] = {part.out, &part.linear->weight, part.linear->bias, accumulate};
  }
  run.matmul(x, std::span(products).first(count));
  for (const LinearPart& part : parts) {
    const LowRank& update = part.linear->lora;
    if (!update.a.empty()) {
      add_update(run, part.out, dropout != nullptr ? ConstRows(dropout->of(run, x, update)) : x,
                 update, lora);
    }
    for (const AdapterRows& rows : adapters) {
      const LowRank* own = rows.adapter->find(*part.linear);
      if (own == nullptr) continue;
      const int64_t end = rows.first + rows.count;
      add_update(run, part.out.slice(rows.first, end), x.slice(rows.first, end), *own, lora);
    }
  }
}

// ---- Attention ----

// A branch that reads the stream without a norm gets a copy of it.
void Block::norm_before(MutRows out, ConstRows x, const Norm& norm) const {
  if (norm.empty()) {
    run_.copy(out, x);
  } else {
    normalize(run_, config_, out, x, norm);
  }
}

// `rows` and `heads` are two views of the same queries or keys.
void Block::finish_heads(MutRows rows, MutHeads heads, std::span<const float> norm,
                         const Angles& angles) const {
  if (config_.qk_norm == QkNorm::Heads) {
    run_.rms_norm_heads(heads, norm, config_.norm_eps, config_.norm_offset);
  } else if (config_.qk_norm == QkNorm::Whole) {
    run_.rms_norm(rows, rows, norm, config_.norm_eps, config_.norm_offset);
  }
  if (angles.cos.data != nullptr) run_.rope(heads, angles.cos, angles.sin);
}

QkvHeads Block::qkv(ConstRows x, const QkvBuffers& b) const {
  const int64_t query_dim = config_.query_dim(), kv_dim = config_.kv_dim();
  const MutRows q = b.qkv.columns(0, query_dim), k = b.qkv.columns(query_dim, kv_dim);
  const MutRows v = b.qkv.columns(query_dim + kv_dim, kv_dim);
  norm_before(b.norm, x, layer_.norm_1);
  probe_("ln_1", b.norm);
  apply(b.norm, {{&layer_.q, q}, {&layer_.k, k}, {&layer_.v, v}});
  if (config_.clip_qkv > 0) run_.clamp(b.qkv, config_.clip_qkv);
  probe_("c_attn", b.qkv);
  if (b.qk_raw.data != nullptr) run_.copy(b.qk_raw, b.qkv.columns(0, b.qk_raw.cols));
  const QkvHeads heads = split_heads(config_, b.qkv);
  finish_heads(q, heads.q, layer_.q_norm, b.angles);
  finish_heads(k, heads.k, layer_.k_norm, b.angles);
  return heads;
}

QkvHeads Block::keys_values(ConstRows x, const QkvBuffers& b) const {
  const int64_t query_dim = config_.query_dim(), kv_dim = config_.kv_dim();
  const MutRows k = b.qkv.columns(query_dim, kv_dim);
  const MutRows v = b.qkv.columns(query_dim + kv_dim, kv_dim);
  norm_before(b.norm, x, layer_.norm_1);
  apply(b.norm, {{&layer_.k, k}, {&layer_.v, v}});
  if (config_.clip_qkv > 0) run_.clamp(b.qkv.columns(query_dim, 2 * kv_dim), config_.clip_qkv);
  const QkvHeads heads = split_heads(config_, b.qkv);
  finish_heads(k, heads.k, layer_.k_norm, b.angles);
  return heads;
}

MutHeads Block::queries(ConstRows x, const QkvBuffers& b) const {
  const MutRows q = b.qkv.columns(0, config_.query_dim());
  norm_before(b.norm, x, layer_.norm_1);
  apply(b.norm, {{&layer_.q, q}});
  if (config_.clip_qkv > 0) run_.clamp(q, config_.clip_qkv);
  const MutHeads heads = split_heads(config_, b.qkv).q;
  finish_heads(q, heads, layer_.q_norm, b.angles);
  return heads;
}

void Block::attention_output(MutRows x_mid, ConstRows x_in, ConstRows attended,
                             MutRows mlp_norm) const {
  probe_("attn_context", attended);
  if (config_.parallel) read_mlp_input(x_in, mlp_norm);
  join(x_mid, x_in, layer_.attn_out, attended, layer_.norm_1_after);
}

void Block::apply(ConstRows x, std::initializer_list<LinearPart> parts, bool accumulate) const {
  apply_linear(run_, x, parts, scratch_.lora, accumulate, scratch_.dropout, scratch_.adapters);
}

// ---- Joining the stream ----

// x_out = x_in + what a branch ends in.
void Block::join(MutRows x_out, ConstRows x_in, const Linear& linear, ConstRows x,
                 const Norm& after) const {
  if (after.empty() && config_.residual_scale == 1) {
    if (x_out.data != x_in.data) run_.copy(x_out, x_in);
    apply(x, {{&linear, x_out}}, /*accumulate=*/true);
    return;
  }
  apply(x, {{&linear, scratch_.branch.slice(0, x.rows)}});
  join_branch(x_out, x_in, after);
}

void Block::join_branch(MutRows x_out, ConstRows x_in, const Norm& after) const {
  const MutRows branch = scratch_.branch.slice(0, x_out.rows);
  if (!after.empty()) normalize(run_, config_, branch, branch, after);
  if (x_out.data != x_in.data) run_.copy(x_out, x_in);
  run_.add(x_out, branch, config_.residual_scale);
}

// ---- MLP ----

void Block::through_mlp(const Mlp& mlp, ConstRows x, MutRows gate, MutRows up,
                        MutRows gated) const {
  apply(x, {{&mlp.up, up}, {&mlp.gate, gate}});
  if (mlp.gate.weight.empty()) {
    run_.activate(gated, up, {}, config_.activation);
  } else {
    run_.activate(gated, gate, up, config_.activation);
  }
}

void Block::read_mlp_input(ConstRows x, MutRows norm) const {
  norm_before(norm, x, config_.mlp_norm ? layer_.norm_2 : layer_.norm_1);
}

void Block::mlp_input(ConstRows x_mid, const MlpBuffers& b) const {
  if (!config_.parallel) read_mlp_input(x_mid, b.norm);
  probe_("ln_2", b.norm);
}

void Block::gated(ConstRows x_mid, const MlpBuffers& b) const {
  mlp_input(x_mid, b);
  through_mlp(layer_.mlp, b.norm, b.gate, b.up, b.gated);
}

void Block::down(MutRows x_out, ConstRows x_mid, ConstRows gated) const {
  join(x_out, x_mid, layer_.mlp.down, gated, layer_.norm_2_after);
}

void Block::feed_forward(MutRows x_out, ConstRows x_mid, const MlpBuffers& b) const {
  if (layer_.router.weight.empty()) {
    gated(x_mid, b);
    down(x_out, x_mid, b.gated);
    return;
  }
  mlp_input(x_mid, b);
  mix_experts(scratch_.branch.slice(0, x_out.rows), b);
  join_branch(x_out, x_mid, layer_.norm_2_after);
}

// ---- Experts ----

void Routing::choose(ConstRows logits, int64_t per_token, bool normalized) {
  const int64_t tokens = logits.rows, experts = logits.cols;
  const auto total = static_cast<size_t>(tokens * per_token);
  rows.resize(total);
  weights.resize(total);
  chosen_.resize(total);
  shares_.resize(total);
  begins.assign(static_cast<size_t>(experts + 1), 0);
  for (int64_t t = 0; t < tokens; ++t) {
    const float* row = logits.row(t);
    const float top = *std::max_element(row, row + experts);
    float sum = 0, kept = 0;
    for (int64_t e = 0; e < experts; ++e) sum += std::exp(row[e] - top);
    int32_t* const own = chosen_.data() + t * per_token;
    float* const shares = shares_.data() + t * per_token;
    for (int64_t i = 0; i < per_token; ++i) {
      int32_t best = -1;
      for (int32_t e = 0; e < static_cast<int32_t>(experts); ++e) {
        if (std::find(own, own + i, e) != own + i) continue;
        if (best < 0 || row[e] > row[best]) best = e;
      }
      own[i] = best;
      shares[i] = std::exp(row[best] - top) / sum;
      kept += shares[i];
      ++begins[static_cast<size_t>(best + 1)];
    }
    if (!normalized) continue;
    for (int64_t i = 0; i < per_token; ++i) shares[i] /= kept;
  }
  for (size_t e = 1; e < begins.size(); ++e) begins[e] += begins[e - 1];
  // `begins` counts up as rows are placed; the last loop moves it back to each expert's begin.
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < per_token; ++i) {
      const auto from = static_cast<size_t>(t * per_token + i);
      const auto to = static_cast<size_t>(begins[static_cast<size_t>(chosen_[from])]++);
      rows[to] = static_cast<int32_t>(t);
      weights[to] = shares_[from];
    }
  }
  for (size_t e = begins.size() - 1; e > 0; --e) begins[e] = begins[e - 1];
  begins[0] = 0;
}

void Routing::backward(MutRows d_logits, ConstRows logits, std::span<const float> d_weights,
                       bool normalized) const {
  const int64_t tokens = logits.rows, experts = logits.cols;
  // Weights are softmaxes: over the chosen logits, or over all of them. d_logit = p · (d_weight -
  // Σ p · d_weight), d_weight 0 of those not chosen.
  std::vector<float> shares(static_cast<size_t>(experts)), back(shares.size());
  for (int64_t t = 0; t < tokens; ++t) {
    std::ranges::fill(shares, 0.0f);
    std::ranges::fill(back, 0.0f);
    for (size_t e = 0; e < shares.size(); ++e) {
      const auto begin = rows.begin() + begins[e], end = rows.begin() + begins[e + 1];
      const auto place = std::lower_bound(begin, end, static_cast<int32_t>(t));
      if (place == end || *place != t) continue;
      const auto at = static_cast<size_t>(place - rows.begin());
      shares[e] = weights[at];
      back[e] = d_weights[at];
    }
    const float* row = logits.row(t);
    if (!normalized) {
      const float top = *std::max_element(row, row + experts);
      float sum = 0;
      for (int64_t e = 0; e < experts; ++e) sum += std::exp(row[e] - top);
      for (size_t e = 0; e < shares.size(); ++e) {
        shares[e] = std::exp(row[static_cast<int64_t>(e)] - top) / sum;
      }
    }
    float mean = 0;
    for (size_t e = 0; e < shares.size(); ++e) mean += shares[e] * back[e];
    for (size_t e = 0; e < shares.size(); ++e) {
      d_logits.row(t)[static_cast<int64_t>(e)] = shares[e] * (back[e] - mean);
    }
  }
}

// Each expert takes its rows together; a token's sum goes by rising expert, whoever else is in the
// batch.
void Block::mix_experts(MutRows out, const MlpBuffers& b) const {
  const Experts& e = config_.experts;
  const MutRows logits = scratch_.router.slice(0, b.norm.rows);
  apply(b.norm, {{&layer_.router, logits}});
  const auto narrowed = [](MutRows rows, int64_t count, int64_t cols) {
    return MutRows{rows.data, count, cols, cols};
  };
  if (e.shared_ffn > 0) {
    const MutRows gate = narrowed(b.gate, b.norm.rows, e.shared_ffn);
    const MutRows up = narrowed(b.up, b.norm.rows, e.shared_ffn);
    through_mlp(layer_.mlp, b.norm, gate, up, gate);
    apply(gate, {{&layer_.mlp.down, out}});
    const MutRows share = narrowed(b.up, b.norm.rows, 1);
    apply(b.norm, {{&layer_.shared_router, share}});
    run_.gate_rows(out, share);
  } else {
    run_.fill(out, 0);
  }
  Routing& routing = *scratch_.routing;
  routing.choose(logits, e.per_token, e.normalized);
  for (size_t index = 0; index < layer_.experts.size(); ++index) {
    const int64_t begin = routing.begins[index], count = routing.begins[index + 1] - begin;
    if (count == 0) continue;
    const Mlp& expert = layer_.experts[index];
    const auto first = static_cast<size_t>(begin), size = static_cast<size_t>(count);
    const std::span<const int32_t> own = std::span(routing.rows).subspan(first, size);
    const MutRows rows = scratch_.expert_rows.slice(0, count);
    const MutRows gate = narrowed(b.gate, count, e.ffn), up = narrowed(b.up, count, e.ffn);
    run_.gather_rows(rows, b.norm, own);
    through_mlp(expert, rows, gate, up, gate);
    apply(gate, {{&expert.down, rows}});
    run_.add_rows(out, rows, own, std::span(routing.weights).subspan(first, size));
  }
}

}  // namespace quern
