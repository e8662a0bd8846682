// Checkpoints of eight-bit floats (e4m3) with scales: as DeepSeek and Qwen write them, a scale for a
// block of a matrix, or with one for the whole of it or for each output.
#pragma once

#include <string>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "core/shape.h"

namespace quern {

struct Fp8Config {
  int64_t block_rows = 128, block_cols = 128;  // of a scale's block
};

// Whether a quantization_config is of such a checkpoint. Throws BadInput for one of the family that
// is not read: another format than e4m3, compressed-tensors of integers.
bool is_fp8_method(const Json& quantization);
// Nothing is thrown for a folder without such a config: the defaults.
Fp8Config read_fp8_config(const fs::path& folder);

// Names under which the scales of `module` may stand, those that matter first, then those of
// activations, which nothing here rounds to eight bits.
std::vector<std::string> fp8_scale_names(std::string_view module);

// levels [rows, cols] · scales as bfloat16 bits. Scales: one number; [rows] or [rows, 1]; or one
// for each block. Throws BadInput naming the tensor where they do not fit or are not finite.
std::vector<std::byte> fp8_to_bf16(const ConstTensorView& levels, const ConstTensorView& scales,
                                   const Fp8Config& config, const std::string& where);

}  // namespace quern
