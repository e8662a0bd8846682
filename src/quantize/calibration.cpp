#include "quantize/calibration.h"

#include <cmath>

#include "model/block.h"
#include "model/rotary.h"

namespace quern {
namespace {

MutRows view(std::vector<float>& values, int64_t rows, int64_t cols) {
  values.resize(static_cast<size_t>(rows * cols));
  return {values.data(), rows, cols, cols};
}

}  // namespace

Calibration::Calibration(Backend& backend, const Config& config, int64_t length,
                         std::function<void()> tick)
    : run_(backend), config_(config), length_(length), tick_(std::move(tick)) {
  const int64_t half = config.rotary_dim / 2;
  const std::vector<float> frequencies = inverse_frequencies(config, 1);
  cos_.resize(static_cast<size_t>(length * half));
  sin_.resize(cos_.size());
  for (int64_t p = 0; p < length; ++p) {
    fill_rotary(cos_.data() + p * half, sin_.data() + p * half, frequencies, p,
                rotary_magnitude(config));
  }
}

void Calibration::embed(const Weight& embedding, std::span<const int32_t> ids) {
  samples_ = static_cast<int64_t>(ids.size()) / length_;
  run_.embed(view(x_, samples_ * length_, config_.hidden), embedding, ids);
}

Hessian Calibration::qkv_inputs(const Layer& layer) {
  const Config& c = config_;
  samples_ = static_cast<int64_t>(x_.size()) / (length_ * c.hidden);
  Hessian hessian(c.hidden);
  const MutRows norm = view(norm_, length_, c.hidden);
  const MutRows x = view(x_, samples_ * length_, c.hidden);
  for (int64_t s = 0; s < samples_; ++s) {
    tick();
    run_.rms_norm(norm, x.slice(s * length_, (s + 1) * length_), layer.norm_1, c.norm_eps);
    hessian.add(run_, norm, 1);
  }
  return hessian;
}

void Calibration::attend(const Layer& layer, int64_t index, ConstRows stream, MutRows attended) {
  const Config& c = config_;
  const int64_t half = c.rotary_dim / 2, kv = c.kv_dim(), q = c.query_dim();
  const MutRows norm = view(norm_, length_, c.hidden);
  const MutRows qkv = view(qkv_, length_, q + 2 * kv);
  const MutRows log_sum = view(log_sum_, length_, c.heads);
  const ConstRows cos = {cos_.data(), length_, half, half},
                  sin = {sin_.data(), length_, half, half};
  TrainingAttention shape = {.batch = 1, .seq = length_};
  shape.scale = 1 / std::sqrt(static_cast<float>(c.head_dim));
  shape.window = c.window(index);
  run_.rms_norm(norm, stream, layer.norm_1, c.norm_eps);
  apply_linear(run_, norm,
               {{&layer.q, qkv.columns(0, q)},
                {&layer.k, qkv.columns(q, kv)},
                {&layer.v, qkv.columns(q + kv, kv)}},
               {});
  const QkvHeads heads = split_heads(c, qkv);
  if (c.qk_norm) {
    run_.rms_norm_heads(heads.q, layer.q_norm, c.norm_eps);
    run_.rms_norm_heads(heads.k, layer.k_norm, c.norm_eps);
  }
  run_.rope(heads.q, cos, sin);
  run_.rope(heads.k, cos, sin);
  const MutHeads out = {attended.data, length_, c.heads, c.head_dim, attended.stride};
  run_.attention_training(out, log_sum, heads.q, heads.k, heads.v, shape);
}

Hessian Calibration::attn_out_inputs(const Layer& layer, int64_t index) {
  const Config& c = config_;
  Hessian hessian(c.query_dim());
  const MutRows x = view(x_, samples_ * length_, c.hidden);
  const MutRows all = view(attended_, samples_ * length_, c.query_dim());
  for (int64_t s = 0; s < samples_; ++s) {
    tick();
    const MutRows attended = all.slice(s * length_, (s + 1) * length_);
    attend(layer, index, x.slice(s * length_, (s + 1) * length_), attended);
    hessian.add(run_, attended, 1);
  }
  return hessian;
}

Hessian Calibration::up_gate_inputs(const Layer& layer) {
  const Config& c = config_;
  Hessian hessian(c.hidden);
  const MutRows norm = view(norm_, length_, c.hidden);
  const MutRows x = view(x_, samples_ * length_, c.hidden);
  const MutRows all = view(attended_, samples_ * length_, c.query_dim());
  for (int64_t s = 0; s < samples_; ++s) {
    tick();
    const MutRows stream = x.slice(s * length_, (s + 1) * length_);
    apply_linear(run_, all.slice(s * length_, (s + 1) * length_), {{&layer.attn_out, stream}}, {},
                 /*accumulate=*/true);
    run_.rms_norm(norm, stream, layer.norm_2, c.norm_eps);
    hessian.add(run_, norm, 1);
  }
  attended_ = {};  // a gigabyte of a large model
  return hessian;
}

void Calibration::swiglu(const Layer& layer, ConstRows stream, MutRows gate, MutRows up) {
  const MutRows norm = view(norm_, length_, config_.hidden);
  run_.rms_norm(norm, stream, layer.norm_2, config_.norm_eps);
  apply_linear(run_, norm, {{&layer.up, up}, {&layer.gate, gate}}, {});
  run_.silu_mul(gate, gate, up);
}

// What goes into the last matrix is four times as wide as the stream: it is computed twice instead
// of kept.
Hessian Calibration::down_inputs(const Layer& layer) {
  const Config& c = config_;
  Hessian hessian(c.ffn);
  std::vector<float> gate_floats, up_floats;
  const MutRows gate = view(gate_floats, length_, c.ffn), up = view(up_floats, length_, c.ffn);
  const MutRows x = view(x_, samples_ * length_, c.hidden);
  for (int64_t s = 0; s < samples_; ++s) {
    tick();
    swiglu(layer, x.slice(s * length_, (s + 1) * length_), gate, up);
    hessian.add(run_, gate, 1);
  }
  return hessian;
}

void Calibration::finish(const Layer& layer) {
  std::vector<float> gate_floats, up_floats;
  const MutRows gate = view(gate_floats, length_, config_.ffn);
  const MutRows up = view(up_floats, length_, config_.ffn);
  const MutRows x = view(x_, samples_ * length_, config_.hidden);
  for (int64_t s = 0; s < samples_; ++s) {
    tick();
    const MutRows stream = x.slice(s * length_, (s + 1) * length_);
    swiglu(layer, stream, gate, up);
    apply_linear(run_, gate, {{&layer.down, stream}}, {}, /*accumulate=*/true);
  }
}

void Calibration::forward(const Layer& layer, int64_t index, std::vector<float>& stream) {
  const Config& c = config_;
  std::vector<float> gate_floats, up_floats, attended_floats;
  const MutRows gate = view(gate_floats, length_, c.ffn), up = view(up_floats, length_, c.ffn);
  const MutRows attended = view(attended_floats, length_, c.query_dim());
  const auto tokens = static_cast<int64_t>(stream.size()) / c.hidden;
  const MutRows all = {stream.data(), tokens, c.hidden, c.hidden};
  for (int64_t begin = 0; begin < tokens; begin += length_) {
    tick();
    const MutRows x = all.slice(begin, begin + length_);
    attend(layer, index, x, attended);
    apply_linear(run_, attended, {{&layer.attn_out, x}}, {}, /*accumulate=*/true);
    swiglu(layer, x, gate, up);
    apply_linear(run_, gate, {{&layer.down, x}}, {}, /*accumulate=*/true);
  }
}

std::vector<float> Calibration::normed(std::span<const float> stream,
                                       std::span<const float> final_norm) {
  std::vector<float> out(stream.size());
  const int64_t hidden = config_.hidden, tokens = static_cast<int64_t>(stream.size()) / hidden;
  run_.rms_norm({out.data(), tokens, hidden, hidden}, {stream.data(), tokens, hidden, hidden},
                final_norm, config_.norm_eps);
  return out;
}

Hessian Calibration::head_inputs(std::span<const float> final_norm) {
  const Config& c = config_;
  samples_ = static_cast<int64_t>(x_.size()) / (length_ * c.hidden);
  Hessian hessian(c.hidden);
  const MutRows norm = view(norm_, length_, c.hidden);
  const MutRows x = view(x_, samples_ * length_, c.hidden);
  for (int64_t s = 0; s < samples_; ++s) {
    tick();
    run_.rms_norm(norm, x.slice(s * length_, (s + 1) * length_), final_norm, c.norm_eps);
    hessian.add(run_, norm, 1);
  }
  return hessian;
}

}  // namespace quern
