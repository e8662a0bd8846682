// One transformer block in four stages, the same for inference, training and calibration:
//
//   qkv               norm, queries, keys and values, their norms and rotation
//   attend            the caller's: over a cache, or over the batch itself
//   attention_output  the residual stream plus what attention found
//   feed_forward      the residual stream plus what the MLP, or the chosen experts, make of it
//
// Where the buffers lie is the caller's too. Training keeps apart what its backward pass reads;
// inference lets x_in, x_mid and x_out be one buffer. What sets families apart are fields of Config
// and empty tensors, which the stages read.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "compute/backend.h"
#include "core/function_ref.h"
#include "model/adapter.h"
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
  MutRows qkv;          // [tokens, qkv_dim]; q and k rotated in place
  MutRows qk_raw = {};  // [tokens, query_dim + kv_dim]: q and k before QK-norm, if wanted
  Angles angles;        // empty where the layer has none
};

// Buffers of the MLP. `gated` may be `gate`.
struct MlpBuffers {
  MutRows norm;             // [tokens, hidden]: what goes in
  MutRows gate, up, gated;  // [tokens, ffn]
};

// Which experts a batch's tokens go through: those of a router's largest outputs.
struct Routing {
  std::vector<int32_t> rows;    // [tokens * per_token], grouped by expert, rising within each
  std::vector<float> weights;   // of each
  std::vector<int64_t> begins;  // [experts + 1]: where each expert's rows begin

  // softmax over the router's outputs [tokens, experts], of which the `per_token` largest count, the
  // first of equals before the others; `normalized`: divided by their sum.
  void choose(ConstRows logits, int64_t per_token, bool normalized);

  // d_logits = the gradient of the router's outputs, from those of `weights`.
  void backward(MutRows d_logits, ConstRows logits, std::span<const float> d_weights,
                bool normalized) const;

 private:
  std::vector<int32_t> chosen_;  // [tokens, per_token]
  std::vector<float> shares_;    // likewise
};

// In training, what of its input a low-rank update sees.
struct LoraDropout {
  Dropout dropout;  // its stream: of the call
  MutRows scratch;  // [tokens, widest input]

  // `x` with some elements dropped: in scratch, until the next call.
  MutRows of(Backend& run, ConstRows x, const LowRank& update) const;
  // The mask alone, over what lies in `x`.
  void mask(Backend& run, MutRows x, const LowRank& update) const;
};

// Rows of a batch that go through an adapter of their own.
struct AdapterRows {
  const Adapter* adapter;
  int64_t first, count;
};

// What a block needs besides, shared by all blocks of a pass. What a model has no use for is empty.
struct BlockScratch {
  MutRows lora = {};         // [tokens, rank]
  MutRows branch = {};       // [tokens, hidden]: a branch before it is added to the stream
  MutRows router = {};       // [tokens, experts]
  MutRows expert_rows = {};  // [tokens, hidden]
  Routing* routing = nullptr;
  const LoraDropout* dropout = nullptr;  // of low-rank updates, in training
  std::span<const AdapterRows> adapters = {};
};
// The widest of a model's MLPs and experts.
int64_t mlp_width(const Config& config) noexcept;
// Whether blocks of a model use BlockScratch::branch.
bool needs_branch(const Config& config) noexcept;

// Parts of QkvBuffers::qkv.
struct QkvHeads {
  MutHeads q, k, v;
};
QkvHeads split_heads(const Config& config, MutRows qkv) noexcept;

// Rows of attention's output as heads.
MutHeads query_heads(const Config& config, MutRows rows) noexcept;

// The model's own kind of norm. `out` may be `x`.
void normalize(Backend& run, const Config& config, MutRows out, ConstRows x, const Norm& norm);

// The residual stream before the first block: embeddings, scaled, with learned positions, normed.
// `scratch`: [tokens, hidden], of models with learned positions.
void embed_tokens(Backend& run, const Config& config, const Weights& weights, MutRows x,
                  std::span<const int32_t> ids, std::span<const int32_t> positions,
                  MutRows scratch);

// Sees inner tensors as they are made: name and rows.
using BlockProbe = FunctionRef<void(std::string_view, ConstRows)>;
inline constexpr auto kNoProbe = [](std::string_view, ConstRows) {};

// Several linear maps of the same input, their adapters included; a map without a matrix is left
// out. `lora`: scratch [tokens, rank]. `adapters`: of these rows of x.
struct LinearPart {
  const Linear* linear;
  MutRows out;
};
void apply_linear(Backend& run, ConstRows x, std::initializer_list<LinearPart> parts, MutRows lora,
                  bool accumulate = false, const LoraDropout* dropout = nullptr,
                  std::span<const AdapterRows> adapters = {});

class Block {
 public:
  Block(Backend& run, const Config& config, const Layer& layer, const BlockScratch& scratch = {},
        BlockProbe probe = kNoProbe)
      : run_(run), config_(config), layer_(layer), scratch_(scratch), probe_(probe) {}

  QkvHeads qkv(ConstRows x, const QkvBuffers& b) const;
  // The same in two halves. Of the last block only some rows' output is wanted: all rows give their
  // keys and values, and only those get queries and whatever comes behind them.
  QkvHeads keys_values(ConstRows x, const QkvBuffers& b) const;  // q is not computed
  MutHeads queries(ConstRows x, const QkvBuffers& b) const;

  // x_mid = x_in + the projection of `attended` [tokens, query_dim]. x_mid may be x_in. Where both
  // branches read the block's input, mlp_norm [tokens, hidden] takes what the MLP is to read.
  void attention_output(MutRows x_mid, ConstRows x_in, ConstRows attended, MutRows mlp_norm) const;

  // x_out = x_mid + MLP(norm of x_mid). x_out may be x_mid. A parallel MLP's norm is there already.
  void feed_forward(MutRows x_out, ConstRows x_mid, const MlpBuffers& b) const;
  // The MLP in two halves: the input of its last matrix, and that matrix.
  void gated(ConstRows x_mid, const MlpBuffers& b) const;
  void down(MutRows x_out, ConstRows x_mid, ConstRows gated) const;

  // Parts of the above, for the backward pass. What the MLP reads of the stream x:
  void read_mlp_input(ConstRows x, MutRows norm) const;
  // An MLP up to its last matrix:
  void through_mlp(const Mlp& mlp, ConstRows x, MutRows gate, MutRows up, MutRows gated) const;
  // out = Σ over a token's experts of weight · expert(b.norm) (+ the shared expert, gated).
  void mix_experts(MutRows out, const MlpBuffers& b) const;

 private:
  void finish_heads(MutRows rows, MutHeads heads, std::span<const float> norm,
                    const Angles& angles) const;
  void norm_before(MutRows out, ConstRows x, const Norm& norm) const;
  void mlp_input(ConstRows x_mid, const MlpBuffers& b) const;
  void apply(ConstRows x, std::initializer_list<LinearPart> parts, bool accumulate = false) const;
  void join(MutRows x_out, ConstRows x_in, const Linear& linear, ConstRows x,
            const Norm& after) const;
  void join_branch(MutRows x_out, ConstRows x_in, const Norm& after) const;

  Backend& run_;
  const Config& config_;
  const Layer& layer_;
  BlockScratch scratch_;
  BlockProbe probe_;
};

}  // namespace quern
