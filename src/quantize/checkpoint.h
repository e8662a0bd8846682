// A whole checkpoint to few bits, one block after another: each sees what the quantized blocks (and
// the quantized matrices before it in its own block) make of the calibration text.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "core/thread_pool.h"
#include "model/weights.h"
#include "quantize/gptq_solver.h"

namespace quern {

struct QuantizeJob {
  fs::path model, out;
  bool gptq = true;  // or round to nearest, which needs no calibration
  QuantizeSettings settings;
  std::vector<std::string> keep;     // matrices whose module's name holds one of these stay float16
  std::vector<int32_t> calibration;  // ids, one sequence of `length` after another
  int64_t length = 0;
  bool measure = false;  // output_error() of each matrix
  uint64_t max_shard_bytes = uint64_t{5} << 30;
  // Weights done, of all that are to be quantized, and the module at work. May throw: what is done
  // is found again by the next run of the same job.
  std::function<void(uint64_t done, uint64_t total, std::string_view module)> on_progress;
  std::function<void(const fs::path& folder)> add_files;  // puts tokenizer and so on into `out`
};

struct MatrixReport {
  std::string module;
  int64_t rows = 0, cols = 0;
  double weight_error = 0;             // sum of (w - q)² over sum of w²
  std::optional<double> output_error;  // the same of its outputs, on the calibration text
  double damping = 0;                  // of GPTQ
};

// Writes `out` in the layout of the release's GPTQ checkpoints (formats/gptq.h). Blocks that are
// done lie in "<out>.quantizing" until the end: a run that was stopped, or killed, is continued
// from there by the same job, to the same bytes. Throws BadInput for a checkpoint that is quantized
// already, for weights that are not finite (named), for calibration text that says nothing, and for
// shapes that groups or packing do not divide.
std::vector<MatrixReport> quantize_checkpoint(const QuantizeJob& job, ThreadPool& pool);

// Cuts `samples` sequences of `length` from a text's ids, evenly spread over it; fewer where the
// text is short. Throws BadInput naming `source` for a text that is empty, shorter than one
// sequence, or one token over and over.
std::vector<int32_t> calibration_samples(std::span<const int32_t> ids, int64_t samples,
                                         int64_t length, std::string_view source);

}  // namespace quern
