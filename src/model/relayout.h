// Tensors of a checkpoint in another layout: fused matrices in parts or parts fused, rows in another
// order, offsets of norms added or taken away.
#pragma once

#include <vector>

#include "formats/safetensors.h"
#include "model/config.h"
#include "model/tensors.h"

namespace quern {

// The same model as its family's config.json says it: its layout is that of the family's files.
// Throws Unsupported where config.json cannot say what the model is.
Config family_layout(const Config& config);

// `store` has the tensors of `from`; floats() those of `to`, which is the same model in another
// layout. Borrows the store.
class Relayout {
 public:
  // Throws Unsupported naming a tensor of `from` that has no place in `to`.
  Relayout(const TensorStore& store, Config from, Config to);

  // A tensor of `to` in the order that its files have. A bias that the store lacks is zeros. Throws
  // BadInput for what is missing, misshapen or not finite.
  std::vector<float> floats(const TensorSpec& spec) const;

  // The type that the store has it in; of a bias that it lacks, F32.
  DType dtype(const TensorSpec& spec) const;

 private:
  const TensorSpec* find(const TensorSpec& like, Part part) const;
  std::vector<float> read(const TensorSpec& spec) const;
  std::vector<float> in_our_order(const TensorSpec& spec) const;

  const TensorStore& store_;
  Config from_, to_;
  std::vector<TensorSpec> specs_;  // of `from`, sorted by place in the model
};

}  // namespace quern
