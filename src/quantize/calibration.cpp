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
  const std::vector<float> frequencies = inverse_frequencies(config, 1, length);
  cos_.resize(static_cast<size_t>(batch_ * half));
  sin_.resize(cos_.size());
  for (int64_t row = 0; row < batch_; ++row) {
    fill_rotary(cos_.data() + row * half, sin_.data() + row * half, frequencies, row % length,
                rotary_magnitude(config));
  }
}

template <class Use>
void Calibration::for_batches(std::span<const float> stream, Use&& use) const {
  const int64_t tokens = static_cast<int64_t>(stream.size()) / config_.hidden;
  for (int64_t begin = 0; begin < tokens; begin += batch_) {
    if (tick_) tick_();
    use(begin, std::min(begin + batch_, tokens));
  }
}

void Calibration::embed(const Weight& embedding, std::span<const int32_t> ids) {
  run_.embed(view(x_, static_cast<int64_t>(ids.size()), config_.hidden), embedding, ids);
}

MutRows Calibration::stream_rows() {
  return {x_.data(), static_cast<int64_t>(x_.size()) / config_.hidden, config_.hidden,
          config_.hidden};
}

MutRows Calibration::normed_batch(ConstRows stream, std::span<const float> weight) {
  const MutRows norm = view(norm_, stream.rows, config_.hidden);
  run_.rms_norm(norm, stream, weight, config_.norm_eps);
  return norm;
}

Hessian Calibration::normed_inputs(std::span<const float> weight) {
  Hessian hessian(pool_, config_.hidden);
  const ConstRows x = stream_rows();
  for_batches(x_, [&](int64_t begin, int64_t end) {
    hessian.add(run_, normed_batch(x.slice(begin, end), weight), (end - begin) / length_);
  });
  return hessian;
}

Hessian Calibration::qkv_inputs(const Layer& layer) { return normed_inputs(layer.norm_1); }

Hessian Calibration::head_inputs(std::span<const float> final_norm) {
  return normed_inputs(final_norm);
}

void Calibration::attend(const Layer& layer, int64_t index, ConstRows stream, MutRows attended) {
  const Config& c = config_;
  const int64_t tokens = stream.rows, half = c.rotary_dim / 2;
  const QkvBuffers buffers = {
      .norm = view(norm_, tokens, c.hidden),
      .qkv = view(qkv_, tokens, c.query_dim() + 2 * c.kv_dim()),
      .angles = {{cos_.data(), tokens, half, half}, {sin_.data(), tokens, half, half}}};
  const QkvHeads heads = Block(run_, c, layer).qkv(stream, buffers);
  run_.attention_training(query_heads(c, attended), view(log_sum_, tokens, c.heads), heads.q,
                          heads.k, heads.v,
                          {.batch = tokens / length_,
                           .seq = length_,
                           .scale = 1 / std::sqrt(static_cast<float>(c.head_dim)),
                           .window = c.window(index)});
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
  for_batches(x_, [&](int64_t begin, int64_t end) {
    const MutRows stream = x.slice(begin, end);
    Block(run_, config_, layer).attention_output(stream, stream, all.slice(begin, end));
    hessian.add(run_, normed_batch(stream, layer.norm_2), (end - begin) / length_);
  });
  attended_ = {};  // a gigabyte of a large model
  return hessian;
}

MlpBuffers Calibration::mlp_buffers(int64_t tokens) {
  const MutRows gate = view(gate_, tokens, config_.ffn);
  return {.norm = view(norm_, tokens, config_.hidden),
          .gate = gate,
          .up = view(up_, tokens, config_.ffn),
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
  if (run_.rounds_products()) gated_.resize(static_cast<size_t>(x.rows * ffn));
  for_batches(x_, [&](int64_t begin, int64_t end) {
    const MlpBuffers buffers = mlp_buffers(end - begin);
    Block(run_, config_, layer).gated(x.slice(begin, end), buffers);
    if (!gated_.empty()) run_.narrow(rounded_gated(begin, end), gate_);
    hessian.add(run_, buffers.gated, (end - begin) / length_);
  });
  return hessian;
}

void Calibration::finish(const Layer& layer) {
  const MutRows x = stream_rows();
  const Block block(run_, config_, layer);
  for_batches(x_, [&](int64_t begin, int64_t end) {
    const MutRows stream = x.slice(begin, end);
    const MlpBuffers buffers = mlp_buffers(end - begin);
    if (gated_.empty()) {
      block.gated(stream, buffers);
    } else {
      run_.widen(gate_, rounded_gated(begin, end));
    }
    block.down(stream, stream, buffers.gated);
  });
  gated_ = {};
}

void Calibration::forward(const Layer& layer, int64_t index, std::vector<float>& stream) {
  const Config& c = config_;
  const Block block(run_, c, layer);
  std::vector<float> attended_floats;
  const MutRows all = {stream.data(), static_cast<int64_t>(stream.size()) / c.hidden, c.hidden,
                       c.hidden};
  for_batches(stream, [&](int64_t begin, int64_t end) {
    const MutRows x = all.slice(begin, end);
    const MutRows attended = view(attended_floats, x.rows, c.query_dim());
    attend(layer, index, x, attended);
    block.attention_output(x, x, attended);
    block.feed_forward(x, x, mlp_buffers(x.rows));
  });
}

std::vector<float> Calibration::normed(std::span<const float> stream,
                                       std::span<const float> final_norm) {
  std::vector<float> out(stream.size());
  const int64_t hidden = config_.hidden, tokens = static_cast<int64_t>(stream.size()) / hidden;
  run_.rms_norm({out.data(), tokens, hidden, hidden}, {stream.data(), tokens, hidden, hidden},
                final_norm, config_.norm_eps);
  return out;
}

}  // namespace quern
