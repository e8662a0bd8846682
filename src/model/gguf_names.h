// A model in a GGUF file: its configuration, and its tensors under the names of our checkpoints.
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

// From the metadata of the architectures qwen, qwen2, qwen3 and llama; others are refused by name.
Config gguf_config(const GgufFile& file);

// Whether models of a family are read from and written to GGUF files.
bool has_gguf_layout(Family family) noexcept;

// "blk.3.attn_q.weight" for a tensor of ours.
std::string gguf_name(const TensorSpec& spec);

// llama.cpp turns LLaMA's rotary halves into neighbours: of each head, row j and row j + half of
// ours are its rows 2j and 2j + 1. `rows` [heads * head_dim, row_bytes], reordered in place.
enum class HeadOrder { Ours, Theirs };
void reorder_heads(std::span<std::byte> rows, int64_t head_dim, HeadOrder to);
bool gguf_reorders(const Config& config, Part part) noexcept;

struct GgufReading {
  std::vector<GgufMatrix>* matrices = nullptr;  // takes the matrices that can be packed
  DType blocks = DType::F16;                    // what other blocks become: F16, BF16 or F32
  std::vector<std::string>* unused = nullptr;   // takes the names of tensors without a use
};

// The tensors as a store of our names, for LoadedWeights. F32, F16 and BF16 stay mapped; the rest
// becomes `blocks`, which is said in the log. The store keeps the file open.
TensorStore gguf_tensors(const fs::path& path, const Config& config,
                         const GgufReading& reading = {});

}  // namespace quern
