// A whole checkpoint to few bits, one block after another: each sees what the quantized blocks (and
// the quantized matrices before it in its own block) make of the calibration text.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "core/thread_pool.h"
#include "quantize/matrix_quantizer.h"

namespace quern {

struct QuantizeJob {
  fs::path model, out;
  bool gptq = true;  // or round to nearest, which needs no calibration
  QuantizeSettings settings;
  // Above 0: bits, group and method of each matrix are chosen so that the average, scales and zeros
  // included, is at most this. Needs calibration text; settings.group is the largest group.
  double target_bits = 0;
  std::vector<std::string> keep;     // matrices whose module's name holds one of these stay float16
  bool embedding_int8 = false;       // rounded to nearest
  bool head_int8 = false;            // likewise, whatever `keep` says
  std::vector<int32_t> calibration;  // ids, one sequence of `length` after another
  int64_t length = 0;
  bool measure = false;  // what the outputs of each matrix lose
  uint64_t max_shard_bytes = uint64_t{5} << 30;
  // Weights done, of all that are to be quantized, and what is at work. May throw: what is done is
  // found again by the next run of the same job.
  std::function<void(uint64_t done, uint64_t total, std::string_view what)> on_progress;
  std::function<void(const fs::path& folder)> add_files;  // puts tokenizer and so on into `out`
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
