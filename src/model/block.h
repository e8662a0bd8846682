// One transformer block in four stages, the same for inference, training and calibration:
//
//   qkv               norm, queries, keys and values, their norms and rotation
//   attend            the caller's: over a cache, or over the batch itself
//   attention_output  the residual stream plus what attention found
//   feed_forward      the residual stream plus what the MLP makes of it
//
// Where the buffers lie is the caller's too. Training keeps apart what its backward pass reads;
// inference lets x_in, x_mid and x_out be one buffer.
#pragma once

#include <initializer_list>
#include <string_view>

#include "compute/backend.h"
#include "core/function_ref.h"
#include "model/config.h"
#include "model/weights.h"

namespace quern {

// Cosines and sines of each token's position.                    both: [tokens, rotary_dim / 2]
struct Angles {
  ConstRows cos, sin;
};

// Buffers of the first stage. `norm` and the queries' part of `qkv` may have fewer rows than the
// keys and values: see Block::queries.
struct QkvBuffers {
  MutRows norm;         // [tokens, hidden]
  MutRows qkv;          // [tokens, query_dim + 2 kv_dim]; q and k rotated in place
  MutRows qk_raw = {};  // [tokens, query_dim + kv_dim]: q and k before QK-norm, if wanted
  Angles angles;
};

// Buffers of the MLP. `gated` may be `gate`.
struct MlpBuffers {
  MutRows norm;             // [tokens, hidden]
  MutRows gate, up, gated;  // [tokens, ffn]
};

// Parts of QkvBuffers::qkv.
struct QkvHeads {
  MutHeads q, k, v;
};
QkvHeads split_heads(const Config& config, MutRows qkv) noexcept;

// Rows of attention's output as heads.
MutHeads query_heads(const Config& config, MutRows rows) noexcept;

// Sees inner tensors as they are made: name and rows.
using BlockProbe = FunctionRef<void(std::string_view, ConstRows)>;
inline constexpr auto kNoProbe = [](std::string_view, ConstRows) {};

// In training, what of its input a low-rank update sees.
struct LoraDropout {
  Dropout dropout;  // its stream: of the call
  MutRows scratch;  // [tokens, widest input]

  // `x` with some elements dropped: in scratch, until the next call.
  MutRows of(Backend& run, ConstRows x, const LowRank& update) const;
  // The mask alone, over what lies in `x`.
  void mask(Backend& run, MutRows x, const LowRank& update) const;
};

class Block {
 public:
  // `lora`: scratch [tokens, rank], empty without adapters. `dropout`: null for none.
  Block(Backend& run, const Config& config, const Layer& layer, MutRows lora = {},
        BlockProbe probe = kNoProbe, const LoraDropout* dropout = nullptr)
      : run_(run), config_(config), layer_(layer), lora_(lora), probe_(probe), dropout_(dropout) {}

  QkvHeads qkv(ConstRows x, const QkvBuffers& b) const;
  // The same in two halves. Of the last block only some rows' output is wanted: all rows give their
  // keys and values, and only those get queries and whatever comes behind them.
  QkvHeads keys_values(ConstRows x, const QkvBuffers& b) const;  // q is not computed
  MutHeads queries(ConstRows x, const QkvBuffers& b) const;

  // x_mid = x_in + the projection of `attended` [tokens, query_dim]. x_mid may be x_in.
  void attention_output(MutRows x_mid, ConstRows x_in, ConstRows attended) const;

  // x_out = x_mid + MLP(norm of x_mid). x_out may be x_mid.
  void feed_forward(MutRows x_out, ConstRows x_mid, const MlpBuffers& b) const;
  // The same in two halves: what goes into the last matrix, and that matrix.
  void gated(ConstRows x_mid, const MlpBuffers& b) const;
  void down(MutRows x_out, ConstRows x_mid, ConstRows gated) const;

 private:
  void finish_heads(MutHeads heads, std::span<const float> norm, const Angles& angles) const;

  Backend& run_;
  const Config& config_;
  const Layer& layer_;
  MutRows lora_;
  BlockProbe probe_;
  const LoraDropout* dropout_;
};

// Several linear maps of the same input, their adapters included. `lora`: scratch [tokens, rank].
struct LinearPart {
  const Linear* linear;
  MutRows out;
};
void apply_linear(Backend& run, ConstRows x, std::initializer_list<LinearPart> parts, MutRows lora,
                  bool accumulate = false, const LoraDropout* dropout = nullptr);

}  // namespace quern
