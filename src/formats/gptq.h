// Checkpoints of four- and eight-bit integers: GPTQ as auto-gptq and GPTQModel write it, AWQ's gemm
// form. How they say what they are, and the packed tensors of one matrix, checked.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/safetensors.h"

namespace quern {

enum class GptqLayout : uint8_t {
  Gptq,    // zero points stored less one
  GptqV2,  // zero points as they are
  AwqGemm  // words run along the outputs, eight of them interleaved; zero points as they are
};

struct GptqConfig {
  int bits = 4;              // 4 or 8; AWQ: 4
  int64_t group_size = 128;  // inputs that share a scale; -1 for all
  bool desc_act = false;     // groups follow the order of activation sizes
  bool sym = true;
  // "dynamic": some matrices have other bits or groups, which the shapes of their tensors tell.
  bool mixed = false;
  GptqLayout layout = GptqLayout::Gptq;
};

// From quantization_config in config.json, or quantize_config.json (GPTQ), or quant_config.json
// (AWQ); nothing for a checkpoint of floats, FP8 among them. Other methods, bit counts and packings
// are refused by name.
std::optional<GptqConfig> read_gptq_config(const fs::path& folder);

// One matrix [out, in] in GPTQ's packing (GptqMatrix, compute/tensor.h): views of the file, or of
// `made` where the file has another form.
struct GptqTensors {
  ConstTensorView qweight;  // I32 [in * bits / 32, out]
  ConstTensorView qzeros;   // I32 [groups, out * bits / 32]
  ConstTensorView scales;   // F16 [groups, out]
  ConstTensorView g_idx;    // I32 [in]
  int bits = 4;
  int zero_shift = 1;
  std::vector<std::string> names;  // of the tensors that were read
  std::vector<std::vector<std::byte>> made;
};

// Throws BadInput naming the member for whatever is missing, misshapen, out of range or not finite.
// Without g_idx groups follow the inputs' order, unless desc_act says that they do not.
GptqTensors read_gptq(const TensorStore& store, const std::string& module, const GptqConfig& config,
                      int64_t in, int64_t out);

// The outputs in another order: output i of the result is output rows[i] of what was given. Everything
// that has a number for each output is copied into `made`.
void reorder_outputs(GptqTensors& tensors, std::span<const int32_t> rows);

}  // namespace quern
