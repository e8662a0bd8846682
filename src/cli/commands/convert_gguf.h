// quern convert to GGUF: a checkpoint as one file that llama.cpp opens.
#pragma once

#include <string>
#include <vector>

#include "core/file.h"
#include "model/config.h"

namespace quern::cli {

// `type`: F16, BF16, F32, Q8_0, Q4_0 or Q4_K, of the matrices; norms and biases stay F32. With four
// bits the embedding and lm_head are Q8_0, as are matrices whose rows Q4_K's blocks of 256 don't
// divide. Throws Unsupported naming what of the model the format cannot say; with `lossy` that is a
// warning.
void convert_to_gguf(const fs::path& model, const fs::path& out, const std::string& type,
                     bool lossy);

// Says what a conversion loses: throws Unsupported, or with `lossy` warns.
void report_lost(const std::string& where, const std::vector<std::string>& lost, bool lossy);

}  // namespace quern::cli
