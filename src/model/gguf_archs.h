// The architectures of GGUF files, and which families they hold.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "model/config.h"

namespace quern {

// Biases that llama.cpp has a place for, beside those of norms: none, of q, k and v, or of all
// matrices; Must where it does not load a file without them.
enum class GgufBiases : uint8_t { None, Qkv, All, Must };

struct GgufArch {
  std::string_view name;  // general.architecture
  Family family;
  bool fused_qkv;    // q, k and v are written as one matrix
  bool adjacent;     // neighbours turn together: rows of q and k lie in that order
  bool fused_gate;   // gate and up are written as one matrix, ffn_up
  bool own_head;     // there is an `output` even where the embedding is the head
  int64_t windowed;  // of so many layers all but the last see a window; 0: windows don't act
  GgufBiases biases;
};

// One row for each family that has an architecture; of families that share one, the plainest first.
std::span<const GgufArch> gguf_archs() noexcept;

// The architecture of a family; null where GGUF has none.
const GgufArch* gguf_arch(Family family) noexcept;

// A model as GGUF files keep its tensors: q, k and v fused in the order of the model, or apart;
// offsets of norms added. `config` is as config.json says it.
Config gguf_layout(const Config& config);

}  // namespace quern
