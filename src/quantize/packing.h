// A quantized matrix in GPTQ's packing: see GptqMatrix (compute/tensor.h).
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "formats/safetensors.h"
#include "quantize/gptq_solver.h"

namespace quern {

struct OwnedTensor {
  PlannedTensor plan;
  std::vector<std::byte> bytes;
};

// The members qweight, qzeros, scales and g_idx of `module`. Throws BadInput where the packing does
// not divide the shape.
std::vector<OwnedTensor> pack_gptq(const QuantizedMatrix& matrix, int bits,
                                   const std::string& module);

// Floats as a float16 tensor. Throws BadInput naming one that does not fit.
OwnedTensor half_tensor(const std::string& name, const Shape& shape, std::span<const float> values);

}  // namespace quern
