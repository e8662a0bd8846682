#include "quantize/calibration.h"

#include <algorithm>
#include <cmath>

#include "model/block.h"
#include "model/rotary.h"

namespace quern {
namespace {

// Tokens that share the work of packing a matrix.
constexpr int64_t kBatchTokens = 4096;

MutRows view(std::vector<float>& values, int64_t rows, int64_t cols) {
  values.resize(static_cast<size_t>(rows * cols));
  return {values.data(), rows, cols, cols};
}

}  // namespace

Calibration::Calibration(Backend& backend, ThreadPool& pool, const Config& config, int64_t length,
                         std::function<void()> tick)
    : run_(backend),
      pool_(pool),
      config_(config),
      length_(length),
      batch_(std::max<int64_t>(kBatchTokens / length, 1) * length),
      tick_(std::move(tick)) {
  const int64_t half = config.rotary_dim / 2;
  const std::vector<float> frequencies =
      inverse_frequencies(config, dynamic_alpha(config.rope_scaling, length), length);
  const std::vector<float> local = local_inverse_frequencies(config);
  cos_.resize(static_cast<size_t>(batch_ * half));
  sin_.resize(cos_.size());
  local_cos_.resize(local.empty() ? 0 : cos_.size());
  local_sin_.resize(local_cos_.size());
  for (int64_t row = 0; row < batch_; ++row) {
    positions_.push_back(static_cast<int32_t>(row % length));
    if (half == 0) continue;
    fill_rotary(cos_.data() + row * half, sin_.data() + row * half, frequencies, row % length,
                rotary_magnitude(config));
    if (local.empty()) continue;
    fill_rotary(local_cos_.data() + row * half, local_sin_.data() + row * half, local, row % length,
                1);
  }
  slopes_ = alibi_slopes(config);
}

template <class Use>
void Calibration::for_batches(std::span<const float> stream, Use&& use) const {
  const int64_t tokens = static_cast<int64_t>(stream.size()) / config_.hidden;
  for (int64_t begin = 0; begin < tokens; begin += batch_) {
    if (tick_) tick_();
    use(begin, std::min(begin + batch_, tokens));
  }
}

void Calibration::embed(const Weights& weights, std::span<const int32_t> ids) {
  const int64_t hidden = config_.hidden;
  const MutRows all = view(x_, static_cast<int64_t>(ids.size()), hidden);
  for_batches(x_, [&](int64_t begin, int64_t end) {
    const auto first = static_cast<size_t>(begin), count = static_cast<size_t>(end - begin);
    embed_tokens(run_, config_, weights, all.slice(begin, end), ids.subspan(first, count),
                 std::span(positions_).first(count), view(norm_, end - begin, hidden));
  });
}

Block Calibration::block_of(const Layer& layer, int64_t tokens) {
  BlockScratch scratch;
  if (needs_branch(config_)) scratch.branch = view(branch_, tokens, config_.hidden);
  if (config_.experts.count > 0) {
    scratch.router = view(router_, tokens, config_.experts.count);
    scratch.expert_rows = view(expert_rows_, tokens, config_.hidden);
    scratch.routing = &routing_;
  }
  return Block(run_, config_, layer, scratch);
}

Angles Calibration::angles(int64_t index, int64_t tokens) {
  const RopeUse use = config_.rope(index);
  const int64_t half = config_.rotary_dim / 2;
  if (use == RopeUse::None || half == 0) return {};
  const bool local = use == RopeUse::Local;
  return {{(local ? local_cos_ : cos_).data(), tokens, half, half},
          {(local ? local_sin_ : sin_).data(), tokens, half, half}};
}

MutRows Calibration::stream_rows() {
  return {x_.data(), static_cast<int64_t>(x_.size()) / config_.hidden, config_.hidden,
          config_.hidden};
}

MutRows Calibration::normed_batch(ConstRows stream, const Norm& norm) {
  const MutRows out = view(norm_, stream.rows, config_.hidden);
  if (norm.empty()) {
    run_.copy(out, stream);
  } else {
    normalize(run_, config_, out, stream, norm);
  }
  return out;
}

Hessian Calibration::normed_inputs(const Norm& norm) {
  Hessian hessian(pool_, config_.hidden);
  const ConstRows x = stream_rows();
  for_batches(x_, [&](int64_t begin, int64_t end) {
    hessian.add(run_, normed_batch(x.slice(begin, end), norm), (end - begin) / length_);
  });
  return hessian;
}

Hessian Calibration::qkv_inputs(const Layer& layer) { return normed_inputs(layer.norm_1); }

Hessian Calibration::head_inputs(const Norm& final_norm) { return normed_inputs(final_norm); }

void Calibration::attend(const Layer& layer, int64_t index, ConstRows stream, MutRows attended) {
  const Config& c = config_;
  const int64_t tokens = stream.rows;
  const QkvBuffers buffers = {.norm = view(norm_, tokens, c.hidden),
                              .qkv = view(qkv_, tokens, c.qkv_dim()),
                              .angles = angles(index, tokens)};
  const QkvHeads heads = block_of(layer, tokens).qkv(stream, buffers);
  run_.attention_training(query_heads(c, attended), view(log_sum_, tokens, c.heads), heads.q,
                          heads.k, heads.v,
                          {.batch = tokens / length_,
                           .seq = length_,
                           .scale = c.score_scale(),
                           .rules = {c.window(index), c.score_cap, slopes_}});
}

Hessian Calibration::attn_out_inputs(const Layer& layer, int64_t index) {
  Hessian hessian(pool_, config_.query_dim());
  const ConstRows x = stream_rows();
  const MutRows all = view(attended_, x.rows, config_.query_dim());
  for_batches(x_, [&](int64_t begin, int64_t end) {
    const MutRows attended = all.slice(begin, end);
    attend(layer, index, x.slice(begin, end), attended);
    hessian.add(run_, attended, (end - begin) / length_);
  });
  return hessian;
}

Hessian Calibration::up_gate_inputs(const Layer& layer) {
  Hessian hessian(pool_, config_.hidden);
  const MutRows x = stream_rows();
  const MutRows all = view(attended_, x.rows, config_.query_dim());
  const MutRows inputs = config_.parallel ? view(mlp_in_, x.rows, config_.hidden) : MutRows{};
  for_batches(x_, [&](int64_t begin, int64_t end) {
    const MutRows stream = x.slice(begin, end);
    const Block block = block_of(layer, stream.rows);
    const MutRows norm =
        config_.parallel ? inputs.slice(begin, end) : view(norm_, stream.rows, config_.hidden);
    block.attention_output(stream, stream, all.slice(begin, end), norm);
    if (!config_.parallel) block.read_mlp_input(stream, norm);
    hessian.add(run_, norm, (end - begin) / length_);
  });
  attended_ = {};  // a gigabyte of a large model
  return hessian;
}

MlpBuffers Calibration::mlp_buffers(int64_t tokens) {
  const MutRows gate = view(gate_, tokens, mlp_width(config_));
  return {.norm = view(norm_, tokens, config_.hidden),
          .gate = gate,
          .up = view(up_, tokens, mlp_width(config_)),
          .gated = gate};
}

std::span<uint16_t> Calibration::rounded_gated(int64_t begin, int64_t end) {
  const int64_t ffn = config_.ffn;
  return std::span(gated_).subspan(static_cast<size_t>(begin * ffn),
                                   static_cast<size_t>((end - begin) * ffn));
}

Hessian Calibration::down_inputs(const Layer& layer) {
  const int64_t ffn = config_.ffn;
  Hessian hessian(pool_, ffn);
  const ConstRows x = stream_rows();
  const MutRows mlp_in = {mlp_in_.data(), x.rows, config_.hidden, config_.hidden};
  if (run_.rounds_products()) gated_.resize(static_cast<size_t>(x.rows * ffn));
  for_batches(x_, [&](int64_t begin, int64_t end) {
    MlpBuffers buffers = mlp_buffers(end - begin);
    if (config_.parallel) buffers.norm = mlp_in.slice(begin, end);
    block_of(layer, end - begin).gated(x.slice(begin, end), buffers);
    if (!gated_.empty()) run_.narrow(rounded_gated(begin, end), gate_);
    hessian.add(run_, buffers.gated, (end - begin) / length_);
  });
  return hessian;
}

void Calibration::finish(const Layer& layer) {
  const MutRows x = stream_rows();
  const MutRows mlp_in = {mlp_in_.data(), x.rows, config_.hidden, config_.hidden};
  for_batches(x_, [&](int64_t begin, int64_t end) {
    const MutRows stream = x.slice(begin, end);
    MlpBuffers buffers = mlp_buffers(end - begin);
    if (config_.parallel) buffers.norm = mlp_in.slice(begin, end);
    const Block block = block_of(layer, stream.rows);
    if (!layer.experts.empty()) {
      block.feed_forward(stream, stream, buffers);
      return;
    }
    if (gated_.empty()) {
      block.gated(stream, buffers);
    } else {
      run_.widen(gate_, rounded_gated(begin, end));
    }
    block.down(stream, stream, buffers.gated);
  });
  gated_ = {};
  mlp_in_ = {};
}

void Calibration::forward(const Layer& layer, int64_t index, std::vector<float>& stream) {
  const Config& c = config_;
  std::vector<float> attended_floats;
  const MutRows all = {stream.data(), static_cast<int64_t>(stream.size()) / c.hidden, c.hidden,
                       c.hidden};
  for_batches(stream, [&](int64_t begin, int64_t end) {
    const MutRows x = all.slice(begin, end);
    const MutRows attended = view(attended_floats, x.rows, c.query_dim());
    attend(layer, index, x, attended);
    const Block block = block_of(layer, x.rows);
    const MlpBuffers buffers = mlp_buffers(x.rows);
    block.attention_output(x, x, attended, buffers.norm);
    block.feed_forward(x, x, buffers);
  });
}

std::vector<float> Calibration::normed(std::span<const float> stream, const Norm& final_norm) {
  std::vector<float> out(stream.size());
  const int64_t hidden = config_.hidden, tokens = static_cast<int64_t>(stream.size()) / hidden;
  normalize(run_, config_, {out.data(), tokens, hidden, hidden},
            {stream.data(), tokens, hidden, hidden}, final_norm);
  return out;
}

}  // namespace quern
