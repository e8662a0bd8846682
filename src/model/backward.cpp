#include "model/backward.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "model/rotary.h"

namespace quern {
namespace {

// d_x (+)= the gradient through y = weight · x + bias, whose own gradients are added to.
void linear_backward(Backend& run, const Parameters& parameters, Parameters& gradients,
                     const Linear& linear, MutRows d_x, ConstRows d_out, ConstRows x,
                     bool accumulate) {
  run.matmul_backward_weight(gradients.twin(parameters, linear.weight),
                             gradients.twin(parameters, linear.bias), d_out, x);
  run.matmul_backward(d_x, d_out, linear.weight, accumulate);
}

Dropout of_layer(Dropout dropout, int64_t layer) noexcept {
  dropout.stream = dropout.stream << 16 | static_cast<uint64_t>(layer + 1);
  return dropout;
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
  const std::vector<int64_t> own = Parameters::layer_offsets(c);
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
    gradients_.emplace(c, block_.floats().subspan(static_cast<size_t>(plan_.gradients)));
  }
  norm_ = floats(c.hidden);
  swiglu_ = floats(c.ffn);
  d_x_ = floats(c.hidden);
  d_norm_ = floats(c.hidden);
  d_attended_ = floats(c.query_dim());
  cos_ = floats(c.rotary_dim / 2);
  sin_ = floats(c.rotary_dim / 2);
  targets_.resize(static_cast<size_t>(tokens));
}

uint64_t TrainingPass::memory_bytes(const Config& c, const TrainingOptions& options) {
  const int64_t scratch = 3 * c.hidden + c.ffn + c.query_dim() + c.rotary_dim;
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

BlockBuffers TrainingPass::buffers(int64_t layer) {
  const Config& c = config_;
  const Saved& s = saved(layer);
  const int64_t tokens = batch_ * seq_;
  const int64_t qk_dim = c.query_dim() + c.kv_dim();
  return {.x_in = x_of(layer),
          .x_mid = rows_at(s.x_mid, c.hidden),
          .x_out = x_of(layer + 1),
          .norm_1 = rows_of(norm_, tokens),
          .norm_2 = rows_of(norm_, tokens),
          .qkv = rows_at(s.qkv, qk_dim + c.kv_dim()),
          .qk_raw = c.qk_norm ? rows_at(s.qk_raw, qk_dim) : MutRows{},
          .attended = rows_at(s.attended, c.query_dim()),
          .gate = rows_at(s.gate, c.ffn),
          .up = rows_at(s.up, c.ffn),
          .swiglu = rows_of(swiglu_, tokens),
          .lora = {}};
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
void TrainingPass::begin(const TrainingBatch& batch) {
  assert(batch.batch * batch.seq <= options_.batch * options_.seq);
  batch_ = batch.batch;
  seq_ = batch.seq;
  starts_ = batch.starts;
  const int64_t half = config_.rotary_dim / 2;
  const std::vector<float> frequencies = inverse_frequencies(config_, /*alpha=*/1);
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
  const int64_t tokens = batch_ * seq_, half = config_.rotary_dim / 2;
  const BlockBuffers b = buffers(index);
  block_forward(
      run_, config_, layer, b, {cos_.floats().data(), tokens, half, half},
      {sin_.floats().data(), tokens, half, half},
      [&](const QkvHeads& h) {
        const MutHeads out = {b.attended.data, tokens, config_.heads, config_.head_dim,
                              b.attended.stride};
        run_.attention_training(out, rows_at(saved(index).log_sum, config_.heads), h.q, h.k, h.v,
                                attention(index));
        run_.dropout(b.attended, of_layer(dropout, index));
      },
      [](std::string_view, ConstRows) {});
}

// `keep`: for a backward pass.
void TrainingPass::forward(const Weights& w, const TrainingBatch& batch, const Dropout& dropout,
                           bool keep) {
  begin(batch);
  const int64_t tokens = batch_ * seq_;
  const MutRows embedded = x_of(0);
  run_.embed(embedded, w.embedding, batch.ids);
  run_.dropout(embedded, of_layer(dropout, -1));
  for (int64_t l = 0; l < config_.layers; ++l) {
    block(w.layers[static_cast<size_t>(l)], l, dropout);
    if (keep && saved(l).rounded >= 0) run_.narrow(rounded(l), inner(l));
  }
  run_.rms_norm(rows_of(norm_, tokens), x_of(config_.layers), w.final_norm, config_.norm_eps);
}

LossSum TrainingPass::loss(const Parameters& parameters, const TrainingBatch& batch) {
  forward(parameters.weights(), batch, {}, /*keep=*/false);
  const int64_t tokens = batch_ * seq_;
  return run_.cross_entropy({}, {}, rows_of(norm_, tokens), parameters.weights().lm_head.weight,
                            std::span(targets_).first(static_cast<size_t>(tokens)), 1);
}

LossSum TrainingPass::forward_backward(const Parameters& parameters, Parameters& gradients,
                                       const TrainingBatch& batch, float scale,
                                       uint64_t dropout_stream) {
  const Config& c = config_;
  const Weights& w = parameters.weights();
  const Dropout dropout = {options_.dropout, options_.dropout_seed, dropout_stream};
  forward(w, batch, dropout, /*keep=*/true);

  const int64_t tokens = batch_ * seq_;
  const MutRows d_x = rows_of(d_x_, tokens), d_norm = rows_of(d_norm_, tokens);
  // Where activations lay a moment ago.
  const auto begin_layer = [&](int64_t l) {
    if (gradients_ && &gradients == &*gradients_) run_.clear(gradients.layer(l));
  };
  begin_layer(c.layers);
  if (c.tied) begin_layer(-1);
  const LossSum sum = run_.cross_entropy(
      d_norm, gradients.twin(parameters, w.lm_head.weight), rows_of(norm_, tokens),
      w.lm_head.weight, std::span(targets_).first(static_cast<size_t>(tokens)), scale);
  std::fill_n(d_x.data, tokens * c.hidden, 0.0f);
  run_.rms_norm_backward(d_x, gradients.twin(parameters, w.final_norm), d_norm,
                         x_of(config_.layers), w.final_norm, c.norm_eps);
  for (int64_t l = c.layers - 1; l >= 0; --l) {
    if (l < options_.recomputed_layers) block(w.layers[static_cast<size_t>(l)], l, dropout);
    if (saved(l).rounded >= 0) run_.widen(inner(l), rounded(l));
    begin_layer(l);
    block_backward(parameters, gradients, l, dropout);
  }
  if (!c.tied) begin_layer(-1);
  run_.dropout(d_x, of_layer(dropout, -1));
  run_.embed_backward(gradients.twin(parameters, w.embedding), d_x, batch.ids);
  return sum;
}

// d_x_ holds the gradient of the block's output and becomes that of its input. The norms and the
// product behind the gate are cheaper to compute again than to keep.
void TrainingPass::block_backward(const Parameters& parameters, Parameters& gradients,
                                  int64_t index, const Dropout& dropout) {
  const Config& c = config_;
  const Layer& layer = parameters.weights().layers[static_cast<size_t>(index)];
  const int64_t tokens = batch_ * seq_, half = c.rotary_dim / 2;
  const int64_t query_dim = c.query_dim(), kv_dim = c.kv_dim();
  const BlockBuffers b = buffers(index);
  const MutRows d_x = rows_of(d_x_, tokens), d_norm = rows_of(d_norm_, tokens);
  const auto backward = [&](const Linear& linear, MutRows d_in, ConstRows d_out, ConstRows x,
                            bool accumulate) {
    linear_backward(run_, parameters, gradients, linear, d_in, d_out, x, accumulate);
  };

  run_.silu_mul(b.swiglu, b.gate, b.up);
  const MutRows d_swiglu = b.swiglu;  // takes its place once the weight's gradient is known
  backward(layer.down, d_swiglu, d_x, b.swiglu, false);
  run_.silu_mul_backward(b.gate, b.up, d_swiglu, b.gate, b.up);
  run_.rms_norm(b.norm_2, b.x_mid, layer.norm_2, c.norm_eps);
  backward(layer.up, d_norm, b.up, b.norm_2, false);
  backward(layer.gate, d_norm, b.gate, b.norm_2, true);
  run_.rms_norm_backward(d_x, gradients.twin(parameters, layer.norm_2), d_norm, b.x_mid,
                         layer.norm_2, c.norm_eps);

  const MutRows d_attended = rows_of(d_attended_, tokens);
  const MutRows d_qkv = b.qkv;  // takes its place
  const auto heads_of = [&](MutRows x) {
    return MutHeads{x.data, tokens, c.heads, c.head_dim, x.stride};
  };
  backward(layer.attn_out, d_attended, d_x, b.attended, false);
  run_.dropout(d_attended, of_layer(dropout, index));
  const QkvHeads d = split_heads(c, d_qkv);
  run_.attention_training_backward(d.q, d.k, d.v, heads_of(d_attended), heads_of(b.attended),
                                   rows_at(saved(index).log_sum, c.heads), d.q, d.k, d.v,
                                   attention(index));
  const ConstRows cos = {cos_.floats().data(), tokens, half, half};
  const ConstRows sin = {sin_.floats().data(), tokens, half, half};
  run_.rope_backward(d.q, cos, sin);
  run_.rope_backward(d.k, cos, sin);
  if (c.qk_norm) {
    const ConstHeads q = {b.qk_raw.data, tokens, c.heads, c.head_dim, b.qk_raw.stride};
    const ConstHeads k = {b.qk_raw.data + query_dim, tokens, c.kv_heads, c.head_dim,
                          b.qk_raw.stride};
    run_.rms_norm_heads_backward(d.q, gradients.twin(parameters, layer.q_norm), q, layer.q_norm,
                                 c.norm_eps);
    run_.rms_norm_heads_backward(d.k, gradients.twin(parameters, layer.k_norm), k, layer.k_norm,
                                 c.norm_eps);
  }
  run_.rms_norm(b.norm_1, b.x_in, layer.norm_1, c.norm_eps);
  backward(layer.q, d_norm, d_qkv.columns(0, query_dim), b.norm_1, false);
  backward(layer.k, d_norm, d_qkv.columns(query_dim, kv_dim), b.norm_1, true);
  backward(layer.v, d_norm, d_qkv.columns(query_dim + kv_dim, kv_dim), b.norm_1, true);
  run_.rms_norm_backward(d_x, gradients.twin(parameters, layer.norm_1), d_norm, b.x_in,
                         layer.norm_1, c.norm_eps);
}

}  // namespace quern
