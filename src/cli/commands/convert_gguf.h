// quern convert --to gguf: a checkpoint as one file that llama.cpp opens.
#pragma once

#include <string>

#include "core/file.h"

namespace quern::cli {

// `type`: F16, BF16, F32, Q8_0, Q4_0 or Q4_K, of the matrices; norms and biases stay F32. With four
// bits the embedding and lm_head are Q8_0, as are matrices whose rows Q4_K's blocks of 256 don't
// divide. `out` must end in .gguf.
void convert_to_gguf(const fs::path& model, const fs::path& out, const std::string& type);

}  // namespace quern::cli
