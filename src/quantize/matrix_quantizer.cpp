#include "quantize/matrix_quantizer.h"

#include <algorithm>

namespace quern {

MatrixQuantizer::MatrixQuantizer(Backend& backend, ThreadPool& pool, std::string module,
                                 int64_t rows, int64_t cols, const MatrixPlan& plan,
                                 const MatrixInputs* inputs)
    : backend_(backend),
      pool_(pool),
      module_(std::move(module)),
      plan_(plan),
      inputs_(inputs),
      whole_{.rows = rows, .cols = cols} {
  whole_.q.reserve(static_cast<size_t>(rows * cols));
}

QuantizedMatrix MatrixQuantizer::quantize(std::span<const float> values, int64_t rows, bool gptq) {
  return gptq ? quern::gptq(backend_, pool_, values, rows, inputs_->factor, plan_.settings, module_)
              : round_to_nearest(pool_, values, rows, plan_.settings, module_);
}

void MatrixQuantizer::take(std::span<float> values) {
  const int64_t rows = static_cast<int64_t>(values.size()) / whole_.cols;
  const auto loss_of = [&](std::span<const float> quantized) {
    return output_loss(backend_, values, quantized, inputs_->moments, whole_.cols);
  };
  QuantizedMatrix part = quantize(values, rows, plan_.method != QuantizeMethod::Nearest);
  std::vector<float> back = part.dequantized();
  if (plan_.method == QuantizeMethod::Better) {
    QuantizedMatrix rounded = quantize(values, rows, /*gptq=*/false);
    std::vector<float> rounded_back = rounded.dequantized();
    plan_.method = QuantizeMethod::Gptq;
    if (loss_of(rounded_back).lost <= loss_of(back).lost) {
      plan_.method = QuantizeMethod::Nearest;
      part = std::move(rounded);
      back = std::move(rounded_back);
    }
  }
  if (inputs_ != nullptr && !inputs_->moments.empty()) outputs_ += loss_of(back);
  weights_ += weight_loss(values, back);
  std::copy(back.begin(), back.end(), values.begin());

  if (taken_ == 0) {
    whole_.groups = part.groups;
    whole_.g_idx = std::move(part.g_idx);
    whole_.scales.resize(static_cast<size_t>(whole_.groups * whole_.rows));
    whole_.zeros.resize(whole_.scales.size());
  }
  whole_.q.insert(whole_.q.end(), part.q.begin(), part.q.end());
  for (int64_t g = 0; g < whole_.groups; ++g) {
    std::copy_n(part.scales.begin() + g * rows, rows,
                whole_.scales.begin() + g * whole_.rows + taken_);
    std::copy_n(part.zeros.begin() + g * rows, rows,
                whole_.zeros.begin() + g * whole_.rows + taken_);
  }
  taken_ += rows;
}

MatrixReport MatrixQuantizer::report() const {
  MatrixReport report = {.module = module_,
                         .rows = whole_.rows,
                         .cols = whole_.cols,
                         .bits = plan_.settings.bits,
                         .group = whole_.cols / whole_.groups,
                         .gptq = plan_.method == QuantizeMethod::Gptq,
                         .weight_error = weights_.share()};
  if (inputs_ != nullptr && !inputs_->moments.empty()) report.output_error = outputs_.share();
  if (report.gptq) report.damping = inputs_->factor.damping;
  return report;
}

std::vector<OwnedTensor> MatrixQuantizer::tensors() const {
  return pack_gptq(whole_, plan_.settings.bits, module_);
}

}  // namespace quern
