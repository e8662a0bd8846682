#include "model/backward.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/rng.h"
#include "model/rotary.h"

namespace quern {
namespace {

Dropout of_layer(Dropout dropout, int64_t layer) noexcept {
  dropout.stream = dropout.stream << 16 | static_cast<uint64_t>(layer + 1);
  return dropout;
}

// The loss is fused with the head's product, which has no place for an adapter.
void check_head(const Weights& weights) {
  if (weights.lm_head.lora.a.empty()) return;
  throw Error(Kind::Unsupported, "training does not support an adapter of the output head",
              "leave lm_head out of the targets, or train it in full");
}

int64_t widest_input(const Config& c) noexcept {
  return std::max({c.hidden, c.ffn, c.query_dim()});
}

std::vector<TensorSpec> trained_specs(const Config& config, const TrainingOptions& options) {
  return options.trained.empty() ? tensor_specs(config) : options.trained;
}

}  // namespace

int64_t TrainingBatch::count_labels() const noexcept {
  int64_t count = 0;
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t t = 1; t < seq; ++t) count += labels[static_cast<size_t>(b * seq + t)] >= 0;
  }
  return count;
}

std::vector<int32_t> starts_of_mask(int64_t batch, int64_t seq, std::span<const int32_t> mask,
                                    std::string_view source) {
  std::vector<int32_t> starts(mask.size());
  for (int64_t b = 0; b < batch; ++b) {
    const auto row = mask.subspan(static_cast<size_t>(b * seq), static_cast<size_t>(seq));
    const auto first = std::find(row.begin(), row.end(), 1);
    const auto last = std::find(first, row.end(), 0);
    const bool rest_is_zero = std::all_of(last, row.end(), [](int32_t m) { return m == 0; });
    const bool before_is_zero = std::all_of(row.begin(), first, [](int32_t m) { return m == 0; });
    if (!rest_is_zero || !before_is_zero) {
      throw_bad_input(
          fmt::format("{}: row {} of the attention mask is not one run of ones", source, b),
          "pad each sequence on one side");
    }
    // A position left of the ones sees itself only; nobody sees it.
    const auto begin = static_cast<int32_t>(first - row.begin());
    for (int32_t t = 0; t < static_cast<int32_t>(seq); ++t) {
      starts[static_cast<size_t>(b * seq + t)] = std::min(begin, t);
    }
  }
  return starts;
}

// The buffers of one block: see model/block.h.
struct TrainingPass::Buffers {
  MutRows x_in, x_mid, x_out;  // [tokens, hidden]
  QkvBuffers qkv;
  MutRows attended;  // [tokens, query_dim]
  MlpBuffers mlp;
};

TrainingPass::Plan TrainingPass::plan_memory(const Config& c, const TrainingOptions& options) {
  constexpr int64_t kAlignment = 16;  // floats: a line of the cache
  const int64_t tokens = options.batch * options.seq;
  const int64_t recomputed = std::clamp<int64_t>(options.recomputed_layers, 0, c.layers);
  Plan plan;
  const auto take = [&](int64_t cols) {
    const int64_t padded = (tokens * cols + kAlignment - 1) / kAlignment * kAlignment;
    return std::exchange(plan.floats, plan.floats + padded);
  };
  // What blocks compute between their products, side by side.
  const auto take_inner = [&](Saved& saved) {
    const int64_t begin = plan.floats;
    saved.rounded = -1;
    saved.qkv = take(c.query_dim() + 2 * c.kv_dim());
    saved.qk_raw = take(c.qk_norm ? c.query_dim() + c.kv_dim() : 0);
    saved.attended = take(c.query_dim());
    saved.gate = take(c.ffn);
    saved.up = take(c.ffn);
    plan.inner_floats = plan.floats - begin;
  };
  Saved shared = {};
  if (recomputed > 0 || options.rounded_activations) take_inner(shared);
  if (recomputed > 0) {
    shared.log_sum = take(c.heads);
    shared.x_mid = take(c.hidden);
  }
  for (int64_t l = 0; l < c.layers; ++l) {
    plan.x.push_back(take(c.hidden));
    Saved& saved = plan.saved.emplace_back(shared);
    if (l < recomputed) continue;
    saved.log_sum = take(c.heads);
    saved.x_mid = take(c.hidden);
    if (options.rounded_activations) {
      saved.rounded = std::exchange(plan.floats, plan.floats + plan.inner_floats / 2);
    } else {
      take_inner(saved);
    }
  }
  plan.x.push_back(take(c.hidden));
  if (!options.own_gradients) return plan;

  // Those of a layer are written when the layers above it are done with, those outside the layers
  // when nothing is, but for the embedding's, which come last where it is not the head as well.
  const std::vector<int64_t> own = Parameters::layer_offsets(c, trained_specs(c, options));
  for (size_t l = 0; l < plan.x.size(); ++l) {
    const bool outside = l + 1 == plan.x.size();
    const int64_t free = outside ? plan.floats : plan.x[l + 1];
    plan.gradients = std::max(plan.gradients, free - own[l + 1]);
  }
  if (c.tied) plan.gradients = plan.floats;
  plan.floats = std::max(plan.floats, plan.gradients + own.back());
  return plan;
}

TrainingPass::TrainingPass(Backend& backend, const Config& config, const TrainingOptions& options)
    : run_(backend), config_(config), options_(options) {
  const Config& c = config_;
  const int64_t tokens = options.batch * options.seq;
  options_.recomputed_layers = std::clamp<int64_t>(options.recomputed_layers, 0, c.layers);
  const auto floats = [&](int64_t cols) {
    return run_.allocate(DType::F32, {tokens, std::max<int64_t>(cols, 1)});
  };
  plan_ = plan_memory(c, options_);
  block_ = run_.allocate(DType::F32, {plan_.floats});
  if (options_.own_gradients) {
    gradients_.emplace(c, trained_specs(c, options_),
                       block_.floats().subspan(static_cast<size_t>(plan_.gradients)));
  }
  norm_ = floats(c.hidden);
  swiglu_ = floats(c.ffn);
  if (options_.lora_dropout > 0) dropped_ = floats(widest_input(c));
  d_x_ = floats(c.hidden);
  d_norm_ = floats(c.hidden);
  d_attended_ = floats(c.query_dim());
  cos_ = floats(c.rotary_dim / 2);
  sin_ = floats(c.rotary_dim / 2);
  targets_.resize(static_cast<size_t>(tokens));
}

uint64_t TrainingPass::memory_bytes(const Config& c, const TrainingOptions& options) {
  const int64_t dropped = options.lora_dropout > 0 ? widest_input(c) : 0;
  const int64_t scratch = 3 * c.hidden + c.ffn + c.query_dim() + c.rotary_dim + dropped;
  const int64_t floats = plan_memory(c, options).floats + options.batch * options.seq * scratch;
  return static_cast<uint64_t>(floats) * sizeof(float);
}

const TrainingPass::Saved& TrainingPass::saved(int64_t layer) const noexcept {
  return plan_.saved[static_cast<size_t>(layer)];
}

std::span<float> TrainingPass::inner(int64_t layer) noexcept {
  return block_.floats().subspan(static_cast<size_t>(saved(layer).qkv),
                                 static_cast<size_t>(plan_.inner_floats));
}

std::span<uint16_t> TrainingPass::rounded(int64_t layer) noexcept {
  std::byte* const begin = block_.data() + saved(layer).rounded * int64_t{sizeof(float)};
  return {reinterpret_cast<uint16_t*>(begin), static_cast<size_t>(plan_.inner_floats)};
}

MutRows TrainingPass::rows_at(int64_t begin, int64_t cols) noexcept {
  return {block_.floats().data() + begin, batch_ * seq_, cols, cols};
}

MutRows TrainingPass::x_of(int64_t layer) noexcept {
  return rows_at(plan_.x[static_cast<size_t>(layer)], config_.hidden);
}

Angles TrainingPass::angles() noexcept {
  const int64_t tokens = batch_ * seq_, half = config_.rotary_dim / 2;
  return {{cos_.floats().data(), tokens, half, half}, {sin_.floats().data(), tokens, half, half}};
}

TrainingPass::Buffers TrainingPass::buffers(int64_t layer) {
  const Config& c = config_;
  const Saved& s = saved(layer);
  const int64_t tokens = batch_ * seq_;
  const int64_t qk_dim = c.query_dim() + c.kv_dim();
  return {.x_in = x_of(layer),
          .x_mid = rows_at(s.x_mid, c.hidden),
          .x_out = x_of(layer + 1),
          .qkv = {.norm = rows_of(norm_, tokens),
                  .qkv = rows_at(s.qkv, qk_dim + c.kv_dim()),
                  .qk_raw = c.qk_norm ? rows_at(s.qk_raw, qk_dim) : MutRows{},
                  .angles = angles()},
          .attended = rows_at(s.attended, c.query_dim()),
          .mlp = {.norm = rows_of(norm_, tokens),
                  .gate = rows_at(s.gate, c.ffn),
                  .up = rows_at(s.up, c.ffn),
                  .gated = rows_of(swiglu_, tokens)}};
}

TrainingAttention TrainingPass::attention(int64_t layer) const noexcept {
  return {.batch = batch_,
          .seq = seq_,
          .scale = 1 / std::sqrt(static_cast<float>(config_.head_dim)),
          .window = config_.window(layer),
          .out_scale = 1 / (1 - options_.dropout),
          .starts = starts_};
}

// Angles and targets of a batch: the label at t + 1 judges the hidden state at t.
void TrainingPass::begin(const Weights& weights, const TrainingBatch& batch,
                         uint64_t dropout_stream, bool training) {
  assert(batch.batch * batch.seq <= options_.batch * options_.seq);
  batch_ = batch.batch;
  seq_ = batch.seq;
  starts_ = batch.starts;
  rank_ = weights.max_lora_rank();
  const int64_t lora_floats = 2 * options_.batch * options_.seq * rank_;
  if (lora_.count() < lora_floats) lora_ = run_.allocate(DType::F32, {lora_floats});
  lora_dropout_ = {};
  if (training && rank_ > 0 && options_.lora_dropout > 0) {
    lora_dropout_ = {.dropout = {options_.lora_dropout, options_.dropout_seed, dropout_stream},
                     .scratch = rows_of(dropped_, batch_ * seq_)};
  }
  const int64_t half = config_.rotary_dim / 2;
  const std::vector<float> frequencies = inverse_frequencies(config_, /*alpha=*/1, seq_);
  const float magnitude = rotary_magnitude(config_);
  for (int64_t row = 0; row < batch_ * seq_; ++row) {
    const int64_t position = row % seq_;
    float* cos = cos_.floats().data() + row * half;
    float* sin = sin_.floats().data() + row * half;
    if (row < seq_) {
      fill_rotary(cos, sin, frequencies, position, magnitude);
    } else {  // every sequence has the angles of the first
      std::copy_n(cos - seq_ * half, half, cos);
      std::copy_n(sin - seq_ * half, half, sin);
    }
    const bool last = position + 1 == seq_;
    targets_[static_cast<size_t>(row)] =
        last ? kIgnoredLabel : batch.labels[static_cast<size_t>(row + 1)];
  }
}

void TrainingPass::block(const Layer& layer, int64_t index, const Dropout& dropout) {
  const Buffers b = buffers(index);
  const MutRows lora =
      rank_ > 0 ? MutRows{lora_.floats().data(), batch_ * seq_, rank_, rank_} : MutRows{};
  const LoraDropout* const dropped =
      lora_dropout_.scratch.data != nullptr ? &lora_dropout_ : nullptr;
  const Block block(run_, config_, layer, lora, kNoProbe, dropped);
  const QkvHeads heads = block.qkv(b.x_in, b.qkv);
  run_.attention_training(query_heads(config_, b.attended),
                          rows_at(saved(index).log_sum, config_.heads), heads.q, heads.k, heads.v,
                          attention(index));
  run_.dropout(b.attended, of_layer(dropout, index));
  block.attention_output(b.x_mid, b.x_in, b.attended);
  block.feed_forward(b.x_out, b.x_mid, b.mlp);
}

// `keep`: for a backward pass.
void TrainingPass::forward(const Weights& w, const TrainingBatch& batch, const Dropout& dropout,
                           bool keep) {
  begin(w, batch, dropout.stream, keep);
  const int64_t tokens = batch_ * seq_;
  const MutRows embedded = x_of(0);
  run_.embed(embedded, w.embedding, batch.ids);
  if (keep && options_.embedding_noise > 0) add_noise(embedded, dropout.stream);
  run_.dropout(embedded, of_layer(dropout, -1));
  for (int64_t l = 0; l < config_.layers; ++l) {
    block(w.layers[static_cast<size_t>(l)], l, dropout);
    if (keep && saved(l).rounded >= 0) run_.narrow(rounded(l), inner(l));
  }
  run_.rms_norm(rows_of(norm_, tokens), x_of(config_.layers), w.final_norm, config_.norm_eps);
}

// Element i has the i-th word of its call's stream, so that threads and cuts don't matter.
void TrainingPass::add_noise(MutRows embedded, uint64_t stream) {
  const float most = options_.embedding_noise /
                     std::sqrt(static_cast<float>(seq_) * static_cast<float>(config_.hidden));
  const uint64_t own = stream << 16 | uint64_t{0x7fff};
  const std::array<uint32_t, 2> key = {static_cast<uint32_t>(options_.dropout_seed),
                                       static_cast<uint32_t>(options_.dropout_seed >> 32)};
  const int64_t count = embedded.rows * embedded.cols;
  for (int64_t i = 0; i < count; i += 4) {
    const auto words = philox({static_cast<uint32_t>(i / 4), static_cast<uint32_t>(i / 4 >> 32),
                               static_cast<uint32_t>(own), static_cast<uint32_t>(own >> 32)},
                              key);
    for (int64_t k = i; k < std::min(i + 4, count); ++k) {
      const float unit = static_cast<float>(words[static_cast<size_t>(k - i)] >> 8) * 0x1p-23f - 1;
      embedded.row(k / embedded.cols)[k % embedded.cols] += most * unit;
    }
  }
}

LossSum TrainingPass::loss(const Weights& weights, const TrainingBatch& batch) {
  check_head(weights);
  forward(weights, batch, {}, /*keep=*/false);
  const int64_t tokens = batch_ * seq_;
  return run_.cross_entropy({}, {}, rows_of(norm_, tokens), weights.lm_head.weight,
                            std::span(targets_).first(static_cast<size_t>(tokens)), 1);
}

LossSum TrainingPass::forward_backward(const Weights& w, const GradientSink& gradients,
                                       const TrainingBatch& batch, float scale,
                                       uint64_t dropout_stream) {
  const Config& c = config_;
  const Dropout dropout = {options_.dropout, options_.dropout_seed, dropout_stream};
  check_head(w);
  forward(w, batch, dropout, /*keep=*/true);

  sink_ = &gradients.into;
  const Weights& sink = sink_->weights();
  const int64_t tokens = batch_ * seq_;
  const MutRows d_x = rows_of(d_x_, tokens), d_norm = rows_of(d_norm_, tokens);
  // Only now: gradients may lie where activations lay a moment ago.
  const auto begin_layer = [&](int64_t l) {
    if (gradients.mode == GradientSink::Mode::Set) run_.clear(sink_->layer(l));
  };
  begin_layer(c.layers);
  if (c.tied) begin_layer(-1);
  const LossSum sum = run_.cross_entropy(
      d_norm, sink_->matrix(sink.lm_head.weight), rows_of(norm_, tokens), w.lm_head.weight,
      std::span(targets_).first(static_cast<size_t>(tokens)), scale);
  std::fill_n(d_x.data, tokens * c.hidden, 0.0f);
  run_.rms_norm_backward(d_x, sink_->vector(sink.final_norm), d_norm, x_of(config_.layers),
                         w.final_norm, c.norm_eps);
  for (int64_t l = c.layers - 1; l >= 0; --l) {
    if (!sink_->any_up_to(l)) return sum;  // nothing that is trained lies below
    const auto index = static_cast<size_t>(l);
    if (l < options_.recomputed_layers) block(w.layers[index], l, dropout);
    if (saved(l).rounded >= 0) run_.widen(inner(l), rounded(l));
    begin_layer(l);
    block_backward(w.layers[index], sink.layers[index], l, dropout);
  }
  if (!c.tied) begin_layer(-1);
  if (sink.embedding.empty()) return sum;
  run_.dropout(d_x, of_layer(dropout, -1));
  run_.embed_backward(sink_->matrix(sink.embedding), d_x, batch.ids);
  return sum;
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
  run_.add(d_x, d_seen);
}

// d_x_ holds the gradient of the block's output and becomes that of its input. The norms and the
// product behind the gate are cheaper to compute again than to keep.
void TrainingPass::block_backward(const Layer& layer, const Layer& sink, int64_t index,
                                  const Dropout& dropout) {
  const Config& c = config_;
  const int64_t tokens = batch_ * seq_;
  const int64_t query_dim = c.query_dim(), kv_dim = c.kv_dim();
  const Buffers b = buffers(index);
  const MutRows d_x = rows_of(d_x_, tokens), d_norm = rows_of(d_norm_, tokens);

  const MlpBuffers& mlp = b.mlp;
  run_.silu_mul(mlp.gated, mlp.gate, mlp.up);
  const MutRows d_gated = mlp.gated;  // takes its place once the weight's gradient is known
  linear_backward(layer.down, sink.down, d_gated, d_x, mlp.gated, false);
  run_.silu_mul_backward(mlp.gate, mlp.up, d_gated, mlp.gate, mlp.up);
  run_.rms_norm(mlp.norm, b.x_mid, layer.norm_2, c.norm_eps);
  linear_backward(layer.up, sink.up, d_norm, mlp.up, mlp.norm, false);
  linear_backward(layer.gate, sink.gate, d_norm, mlp.gate, mlp.norm, true);
  run_.rms_norm_backward(d_x, sink_->vector(sink.norm_2), d_norm, b.x_mid, layer.norm_2,
                         c.norm_eps);

  const MutRows d_attended = rows_of(d_attended_, tokens);
  const MutRows d_qkv = b.qkv.qkv;  // takes its place
  linear_backward(layer.attn_out, sink.attn_out, d_attended, d_x, b.attended, false);
  run_.dropout(d_attended, of_layer(dropout, index));
  const QkvHeads d = split_heads(c, d_qkv);
  run_.attention_training_backward(
      d.q, d.k, d.v, query_heads(c, d_attended), query_heads(c, b.attended),
      rows_at(saved(index).log_sum, c.heads), d.q, d.k, d.v, attention(index));
  run_.rope_backward(d.q, b.qkv.angles.cos, b.qkv.angles.sin);
  run_.rope_backward(d.k, b.qkv.angles.cos, b.qkv.angles.sin);
  if (c.qk_norm) {
    const QkvHeads raw = split_heads(c, b.qkv.qk_raw);
    run_.rms_norm_heads_backward(d.q, sink_->vector(sink.q_norm), raw.q, layer.q_norm, c.norm_eps);
    run_.rms_norm_heads_backward(d.k, sink_->vector(sink.k_norm), raw.k, layer.k_norm, c.norm_eps);
  }
  run_.rms_norm(b.qkv.norm, b.x_in, layer.norm_1, c.norm_eps);
  linear_backward(layer.q, sink.q, d_norm, d_qkv.columns(0, query_dim), b.qkv.norm, false);
  linear_backward(layer.k, sink.k, d_norm, d_qkv.columns(query_dim, kv_dim), b.qkv.norm, true);
  linear_backward(layer.v, sink.v, d_norm, d_qkv.columns(query_dim + kv_dim, kv_dim), b.qkv.norm,
                  true);
  run_.rms_norm_backward(d_x, sink_->vector(sink.norm_1), d_norm, b.x_in, layer.norm_1, c.norm_eps);
}

}  // namespace quern
