// GPTQ checkpoints as auto-gptq writes them: how they say what they are, and the packed tensors of
// one matrix, checked.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "formats/safetensors.h"

namespace quern {

struct GptqConfig {
  int bits = 4;              // 4 or 8
  int64_t group_size = 128;  // inputs that share a scale; -1 for all
  bool desc_act = false;     // groups follow the order of activation sizes
  bool sym = true;
  // "dynamic": some matrices have other bits or groups, which the shapes of their tensors tell.
  bool mixed = false;
};

// From quantization_config in config.json, or quantize_config.json; nothing for a float checkpoint.
// Other methods, bit counts and packings are refused by name.
std::optional<GptqConfig> read_gptq_config(const fs::path& folder);

// One matrix [out, in]: views of the file. See GptqMatrix (compute/tensor.h) for the packing.
struct GptqTensors {
  ConstTensorView qweight;  // I32 [in * bits / 32, out]
  ConstTensorView qzeros;   // I32 [groups, out * bits / 32]
  ConstTensorView scales;   // F16 [groups, out]
  ConstTensorView g_idx;    // I32 [in]
  int bits = 4;
};

// Throws BadInput naming the member for whatever is missing, misshapen, out of range or not finite.
GptqTensors read_gptq(const TensorStore& store, const std::string& module, const GptqConfig& config,
                      int64_t in, int64_t out);

}  // namespace quern
