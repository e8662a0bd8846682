// A quantized checkpoint as the one of floats that it stands for, under the names, shapes and order
// of its family's own files: GPTQ and AWQ folders, GGUF files.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "formats/gptq.h"
#include "formats/safetensors.h"
#include "model/config.h"
#include "model/relayout.h"

namespace quern {

class FloatBase {
 public:
  // `blocks`: what GGUF's blocks become, F16, BF16 or F32. Throws BadInput for a file that is wrong,
  // Unsupported naming the tensor that the family's float files have no place for.
  FloatBase(const fs::path& model, const Config& config, DType blocks);

  // All tensors. The views of those that values() makes have no data.
  const TensorStore& floats() const noexcept { return floats_; }

  // A tensor whose view has no data. Of a GPTQ matrix: scale · (level - zero point).
  std::vector<float> values(const std::string& name) const;

 private:
  void read_gguf(const Config& config, DType blocks);
  void read_packed(const Config& config);

  TensorStore stored_;
  std::unique_ptr<Relayout> relayout_;  // of a GGUF file
  GptqConfig gptq_;
  std::map<std::string, TensorSpec, std::less<>> made_;  // what values() makes
  TensorStore floats_;
};

}  // namespace quern
