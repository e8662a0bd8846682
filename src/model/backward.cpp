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

constexpr float kHeadEps = 1e-30f;

// The loss is fused with the head's product, which has no place for an adapter.
void check_head(const Weights& weights) {
  if (weights.lm_head.lora.a.empty()) return;
  throw Error(Kind::Unsupported, "training does not support an adapter of the output head",
              "leave lm_head out of the targets, or train it in full");
}

// Columns of q, k (and v) that are kept as they are before they go on: before QK-norm, or where they
// were cut.
int64_t raw_columns(const Config& c) noexcept {
  if (c.clip_qkv > 0) return c.qkv_dim();
  return c.qk_norm != QkNorm::None ? c.query_dim() + c.kv_dim() : 0;
}

bool any_mlp(const Config& c) noexcept {
  for (int64_t l = 0; l < c.layers; ++l) {
    if (!c.has_experts(l)) return true;
  }
  return false;
}

// Floats of a token that a pass has beside what blocks keep.
int64_t scratch_floats(const Config& c) noexcept {
  int64_t floats = 3 * c.hidden + c.ffn + c.query_dim() + 2 * c.rotary_dim;
  if (needs_branch(c)) floats += 2 * c.hidden;
  if (c.experts.count > 0) {
    floats += 2 * c.experts.count + 3 * c.hidden + 3 * mlp_width(c);
  }
  return floats;
}

// The widest input of a matrix.
int64_t widest_input(const Config& c) noexcept {
  return std::max({c.hidden, mlp_width(c), c.query_dim()});
}

std::vector<TensorSpec> trained_specs(const Config& config, const TrainingOptions& options) {
  return options.trained.empty() ? tensor_specs(config) : options.trained;
}

}  // namespace

Dropout TrainingPass::of_layer(Dropout dropout, int64_t layer) noexcept {
  dropout.stream = dropout.stream << 16 | static_cast<uint64_t>(layer + 1);
  return dropout;
}

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
    saved.qk_raw = take(raw_columns(c));
    saved.attended = take(c.query_dim());
    saved.gate = take(any_mlp(c) ? c.ffn : 0);
    saved.up = take(any_mlp(c) ? c.ffn : 0);
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
  if (c.learned_positions > 0 && options.seq > c.learned_positions) {
    throw Error(Kind::Misused,
                fmt::format("sequences of {} tokens do not fit the model's {} learned positions",
                            options.seq, c.learned_positions),
                "train with shorter sequences");
  }
  norm_ = floats(c.hidden);
  swiglu_ = floats(c.ffn);
  if (options_.lora_dropout > 0) dropped_ = floats(widest_input(c));
  d_x_ = floats(c.hidden);
  d_norm_ = floats(c.hidden);
  d_attended_ = floats(c.query_dim());
  cos_ = floats(c.rotary_dim / 2);
  sin_ = floats(c.rotary_dim / 2);
  if (c.rope_local_theta > 0) {
    local_cos_ = floats(c.rotary_dim / 2);
    local_sin_ = floats(c.rotary_dim / 2);
  }
  if (needs_branch(c)) {
    branch_ = floats(c.hidden);
    d_branch_ = floats(c.hidden);
  }
  if (c.experts.count > 0) {
    router_ = floats(c.experts.count);
    d_router_ = floats(c.experts.count);
    for (Tensor* rows : {&expert_rows_, &expert_out_, &d_expert_}) *rows = floats(c.hidden);
    for (Tensor* rows : {&expert_gate_, &expert_up_, &expert_gated_}) *rows = floats(mlp_width(c));
  }
  slopes_ = alibi_slopes(c);
  targets_.resize(static_cast<size_t>(tokens));
  positions_.resize(static_cast<size_t>(tokens));
}

uint64_t TrainingPass::memory_bytes(const Config& c, const TrainingOptions& options) {
  const int64_t tokens = options.batch * options.seq;
  const int64_t dropped = options.lora_dropout > 0 ? widest_input(c) : 0;
  const int64_t floats = plan_memory(c, options).floats + tokens * (scratch_floats(c) + dropped);
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

Angles TrainingPass::angles(int64_t layer) noexcept {
  const int64_t tokens = batch_ * seq_, half = config_.rotary_dim / 2;
  const RopeUse use = config_.rope(layer);
  if (use == RopeUse::None || half == 0) return {};
  Tensor& cos = use == RopeUse::Local ? local_cos_ : cos_;
  Tensor& sin = use == RopeUse::Local ? local_sin_ : sin_;
  return {{cos.floats().data(), tokens, half, half}, {sin.floats().data(), tokens, half, half}};
}

BlockScratch TrainingPass::scratch() noexcept {
  const int64_t tokens = batch_ * seq_;
  const auto rows = [&](Tensor& tensor) {
    return tensor.empty() ? MutRows{} : rows_of(tensor, tokens);
  };
  return {.lora = rank_ > 0 ? MutRows{lora_.floats().data(), tokens, rank_, rank_} : MutRows{},
          .branch = rows(branch_),
          .router = rows(router_),
          .expert_rows = rows(expert_rows_),
          .routing = &routing_,
          .dropout = lora_dropout_.scratch.data != nullptr ? &lora_dropout_ : nullptr};
}

TrainingPass::Buffers TrainingPass::buffers(int64_t layer) {
  const Config& c = config_;
  const Saved& s = saved(layer);
  const int64_t tokens = batch_ * seq_, raw = raw_columns(c);
  const bool experts = c.has_experts(layer);
  const MutRows gated = experts ? rows_of(expert_gate_, tokens) : rows_of(swiglu_, tokens);
  return {.x_in = x_of(layer),
          .x_mid = rows_at(s.x_mid, c.hidden),
          .x_out = x_of(layer + 1),
          .qkv = {.norm = rows_of(norm_, tokens),
                  .qkv = rows_at(s.qkv, c.qkv_dim()),
                  .qk_raw = raw > 0 ? rows_at(s.qk_raw, raw) : MutRows{},
                  .angles = angles(layer)},
          .attended = rows_at(s.attended, c.query_dim()),
          .mlp = {.norm = rows_of(norm_, tokens),
                  .gate = experts ? rows_of(expert_gate_, tokens) : rows_at(s.gate, c.ffn),
                  .up = experts ? rows_of(expert_up_, tokens) : rows_at(s.up, c.ffn),
                  .gated = gated}};
}

TrainingAttention TrainingPass::attention(int64_t layer) const noexcept {
  return {.batch = batch_,
          .seq = seq_,
          .scale = config_.score_scale(),
          .rules = {config_.window(layer), config_.score_cap, slopes_},
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
  const std::vector<float> frequencies =
      inverse_frequencies(config_, dynamic_alpha(config_.rope_scaling, seq_), seq_);
  const std::vector<float> local = local_inverse_frequencies(config_);
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
    if (!local.empty()) {
      fill_rotary(local_cos_.floats().data() + row * half, local_sin_.floats().data() + row * half,
                  local, position, 1);
    }
    positions_[static_cast<size_t>(row)] = static_cast<int32_t>(position);
    const bool last = position + 1 == seq_;
    targets_[static_cast<size_t>(row)] =
        last ? kIgnoredLabel : batch.labels[static_cast<size_t>(row + 1)];
  }
}

void TrainingPass::block(const Layer& layer, int64_t index, const Dropout& dropout) {
  const Buffers b = buffers(index);
  const Block block(run_, config_, layer, scratch());
  const QkvHeads heads = block.qkv(b.x_in, b.qkv);
  run_.attention_training(query_heads(config_, b.attended),
                          rows_at(saved(index).log_sum, config_.heads), heads.q, heads.k, heads.v,
                          attention(index));
  run_.dropout(b.attended, of_layer(dropout, index));
  block.attention_output(b.x_mid, b.x_in, b.attended, b.mlp.norm);
  block.feed_forward(b.x_out, b.x_mid, b.mlp);
}

// `keep`: for a backward pass.
void TrainingPass::forward(const Weights& w, const TrainingBatch& batch, const Dropout& dropout,
                           bool keep) {
  begin(w, batch, dropout.stream, keep);
  const int64_t tokens = batch_ * seq_;
  const MutRows embedded = x_of(0);
  embed_tokens(run_, config_, w, embedded, batch.ids,
               std::span(positions_).first(static_cast<size_t>(tokens)), rows_of(norm_, tokens));
  if (keep && options_.embedding_noise > 0) add_noise(embedded, dropout.stream);
  run_.dropout(embedded, of_layer(dropout, -1));
  for (int64_t l = 0; l < config_.layers; ++l) {
    block(w.layers[static_cast<size_t>(l)], l, dropout);
    if (keep && saved(l).rounded >= 0) run_.narrow(rounded(l), inner(l));
  }
  normalize(run_, config_, rows_of(norm_, tokens), x_of(config_.layers), w.final_norm);
}

// A normalized head has rows of length 1: an RMS norm with the weight 1 / sqrt(hidden), which is
// applied to a head that is normalized already without harm.
LossHead TrainingPass::head(const Weights& w) {
  const Linear& linear = w.lm_head;
  LossHead out = {&linear.weight, linear.bias, config_.logit_scale, config_.logit_cap};
  if (!config_.head_normalized) return out;
  const int64_t vocab = linear.weight.rows, hidden = config_.hidden;
  if (linear.weight.format != WeightFormat::F32) return out;  // loading has normalized it
  if (head_.empty()) {
    head_ = run_.allocate(DType::F32, {vocab, hidden});
    d_head_ = run_.allocate(DType::F32, {vocab, hidden});
    const auto size = static_cast<float>(hidden);
    head_scale_.assign(static_cast<size_t>(hidden), 1 / std::sqrt(size));
  }
  run_.rms_norm(rows_of(head_, vocab),
                {reinterpret_cast<const float*>(linear.weight.data), vocab, hidden, hidden},
                head_scale_, kHeadEps);
  head_weight_ = linear.weight;
  head_weight_.data = head_.data();
  out.weight = &head_weight_;
  return out;
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
  return run_.cross_entropy({}, {}, {}, rows_of(norm_, tokens), head(weights),
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
  const LossHead loss_head = head(w);
  const bool normalized = loss_head.weight == &head_weight_ && !sink.lm_head.weight.empty();
  if (normalized) run_.fill(rows_of(d_head_, w.lm_head.weight.rows), 0);
  const LossSum sum = run_.cross_entropy(
      d_norm,
      normalized ? rows_of(d_head_, w.lm_head.weight.rows) : sink_->matrix(sink.lm_head.weight),
      sink_->vector(sink.lm_head.bias), rows_of(norm_, tokens), loss_head,
      std::span(targets_).first(static_cast<size_t>(tokens)), scale);
  if (normalized) {
    const int64_t vocab = w.lm_head.weight.rows;
    run_.rms_norm_backward(
        sink_->matrix(sink.lm_head.weight), {}, rows_of(d_head_, vocab),
        {reinterpret_cast<const float*>(w.lm_head.weight.data), vocab, c.hidden, c.hidden},
        head_scale_, kHeadEps);
  }
  std::fill_n(d_x.data, tokens * c.hidden, 0.0f);
  norm_backward(w.final_norm, sink.final_norm, d_x, d_norm, x_of(config_.layers));
  for (int64_t l = c.layers - 1; l >= 0; --l) {
    if (!sink_->any_up_to(l)) return sum;  // nothing that is trained lies below
    const auto index = static_cast<size_t>(l);
    if (l < options_.recomputed_layers) block(w.layers[index], l, dropout);
    if (saved(l).rounded >= 0) run_.widen(inner(l), rounded(l));
    begin_layer(l);
    block_backward(w.layers[index], sink.layers[index], l, dropout);
  }
  if (!c.tied) begin_layer(-1);
  embedding_backward(w, sink, batch.ids, dropout);
  return sum;
}

void TrainingPass::embedding_backward(const Weights& w, const Weights& sink,
                                      std::span<const int32_t> ids, const Dropout& dropout) {
  if (!sink_->any_up_to(-1)) return;
  const Config& c = config_;
  const int64_t tokens = batch_ * seq_;
  const auto positions = std::span(positions_).first(static_cast<size_t>(tokens));
  MutRows d_x = rows_of(d_x_, tokens);
  run_.dropout(d_x, of_layer(dropout, -1));
  if (c.embedding_norm) {  // its input is computed again
    Weights without = {.embedding = w.embedding, .positions = w.positions};
    const MutRows x = rows_of(norm_, tokens), d = rows_of(d_norm_, tokens);
    embed_tokens(run_, c, without, x, ids, positions, d);
    run_.fill(d, 0);
    norm_backward(w.embedding_norm, sink.embedding_norm, d, d_x, x);
    d_x = d;
  }
  if (!sink.positions.empty()) {
    run_.embed_backward(sink_->matrix(sink.positions), d_x, positions);
  }
  if (sink.embedding.empty()) return;
  if (c.embed_scale != 1) run_.scale(d_x, c.embed_scale);
  run_.embed_backward(sink_->matrix(sink.embedding), d_x, ids);
}

}  // namespace quern
