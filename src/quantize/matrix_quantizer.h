// One matrix of a checkpoint on its way to few bits, some rows at a time: the head or the embedding
// of a large model never lies in memory as floats as a whole.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "quantize/gptq_solver.h"
#include "quantize/packing.h"

namespace quern {

enum class QuantizeMethod : uint8_t {
  Nearest,  // round_to_nearest()
  Gptq,
  Better,  // of the two, the one that loses less of the outputs
};

struct MatrixPlan {
  QuantizeSettings settings;
  QuantizeMethod method = QuantizeMethod::Nearest;
};

struct MatrixReport {
  std::string module;
  int64_t rows = 0, cols = 0;
  int bits = 0;
  int64_t group = 0;
  bool gptq = false;
  double weight_error = 0;             // sum of (w - q)² over sum of w²
  std::optional<double> output_error;  // the same of its outputs, on the calibration text
  double damping = 0;                  // of GPTQ
};

// What is known of the inputs of matrices that share them.
struct MatrixInputs {
  GptqFactor factor;
  std::vector<float> moments;  // [cols, cols]; empty where no output error is wanted
};

class MatrixQuantizer {
 public:
  // `inputs` is null where rounding to nearest is all; it must outlive this. Better needs moments.
  MatrixQuantizer(Backend& backend, ThreadPool& pool, std::string module, int64_t rows,
                  int64_t cols, const MatrixPlan& plan, const MatrixInputs* inputs);

  // The next rows, finite; they become what the quantized ones compute with. Better chooses by the
  // first that come. Throws as round_to_nearest() does.
  void take(std::span<float> values);

  // Once all rows are there.
  MatrixReport report() const;
  std::vector<OwnedTensor> tensors() const;  // pack_gptq()

 private:
  QuantizedMatrix quantize(std::span<const float> values, int64_t rows, bool gptq);

  Backend& backend_;
  ThreadPool& pool_;
  std::string module_;
  MatrixPlan plan_;
  const MatrixInputs* inputs_;
  QuantizedMatrix whole_;
  int64_t taken_ = 0;
  Loss weights_, outputs_;
};

}  // namespace quern
