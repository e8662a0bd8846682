// Names and tensors of a GGUF file, under the names of our checkpoints.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "model/config.h"
#include "model/pack_weights.h"
#include "model/tensors.h"

namespace quern {

// "blk.3.attn_q.weight" for a tensor of ours. Those of a layer's experts have one name: they lie in
// one tensor, [experts, rows, cols].
std::string gguf_name(const TensorSpec& spec, const Config& config);
std::string_view gguf_part_name(const TensorSpec& spec, const Config& config);

// llama.cpp turns neighbours where most families turn halves: the file's row of each of ours. Empty
// where the order is the same.
std::vector<int32_t> gguf_rows(const TensorSpec& spec, const Config& config);

struct GgufReading {
  std::vector<GgufMatrix>* matrices = nullptr;  // takes the matrices that can be packed
  DType blocks = DType::F16;                    // what other blocks become: F16, BF16 or F32
  std::vector<std::string>* unused = nullptr;   // takes the names of tensors without a use
};

// The tensors as a store of our names, for LoadedWeights, in the order of the model. `config` is
// that of the file: gguf_config(). F32, F16 and BF16 stay mapped; the rest
// becomes `blocks`, which is said in the log. The store keeps the file open.
TensorStore gguf_tensors(const fs::path& path, const Config& config,
                         const GgufReading& reading = {});

}  // namespace quern
