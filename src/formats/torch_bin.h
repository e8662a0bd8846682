// PyTorch's .bin checkpoints: zip files of pickled structure and raw storages. Unpickling runs
// whatever a file asks for, so the reader here is no unpickler: it knows the few instructions that
// a dictionary of tensors needs, can make nothing but tensors, and names anything else in its
// refusal.
#pragma once

#include <memory>
#include <vector>

#include "formats/safetensors.h"

namespace quern {

class TorchBin {
 public:
  // A .bin (or .pt) file, or a folder with pytorch_model.bin or pytorch_model.bin.index.json.
  static TorchBin open(const fs::path& file_or_folder);
  TorchBin(TorchBin&&) noexcept;
  TorchBin& operator=(TorchBin&&) noexcept;
  ~TorchBin();

  const std::vector<NamedTensor>& tensors() const noexcept;  // sorted by name

 private:
  struct State;
  explicit TorchBin(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace quern
