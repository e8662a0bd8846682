// One transformer block, the same for inference and training. What differs between the two is where
// the buffers lie and whom attention looks at; both are the caller's.
#pragma once

#include <functional>
#include <string_view>

#include "compute/backend.h"
#include "core/function_ref.h"
#include "model/config.h"
#include "model/weights.h"

namespace quern {

// Where a block's output is wanted of some tokens only, as the last block's is: the others give
// their keys and values, and nothing else is computed for them. Everything behind attention's
// queries then has `kept` rows instead of `tokens`; x_mid must not be x_in.
struct KeptRows {
  std::span<const int32_t> rows;  // rising
  MutRows norm;                   // [kept, hidden], scratch
  ConstRows cos, sin;             // of these rows
};

// The buffers of one block over `tokens` tokens. Inference lets x_in, x_mid and x_out be one
// buffer, as it does norm_1 and norm_2, gate and swiglu; training keeps apart what its backward
// pass reads.
struct BlockBuffers {
  MutRows x_in, x_mid, x_out;  // [tokens, hidden]: the residual stream before, between, after
  MutRows norm_1, norm_2;      // [tokens, hidden]
  MutRows qkv;                 // [tokens, query_dim + 2 kv_dim]; q and k rotated in place
  MutRows qk_raw = {};         // [tokens, query_dim + kv_dim]: q and k before QK-norm, if wanted
  MutRows attended;            // [tokens, query_dim]
  MutRows gate, up, swiglu;    // [tokens, ffn]
  MutRows lora;                // [tokens, rank]; empty without adapters
  const KeptRows* kept = nullptr;
};

// The views that attention works on: parts of BlockBuffers::qkv. With KeptRows `q` has their rows.
struct QkvHeads {
  MutHeads q, k, v;
};
QkvHeads split_heads(const Config& config, MutRows qkv) noexcept;

// Sees inner tensors as they are made: name and rows.
using BlockProbe = FunctionRef<void(std::string_view, ConstRows)>;

// `attend` fills `attended` from the rotated q, k and v.
void block_forward(Backend& run, const Config& config, const Layer& layer,
                   const BlockBuffers& buffers, ConstRows cos, ConstRows sin,
                   FunctionRef<void(const QkvHeads&)> attend, BlockProbe probe);

// Several linear maps of the same input, their adapters included. `lora`: scratch [tokens, rank].
struct LinearPart {
  const Linear* linear;
  MutRows out;
};
void apply_linear(Backend& run, ConstRows x, std::initializer_list<LinearPart> parts, MutRows lora,
                  bool accumulate = false);

}  // namespace quern
