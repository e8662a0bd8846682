// The vocabulary of operations: what a model is written in, and what a machine has to provide. The
// CPU's is compute/cpu; another backend fits behind the same methods.
//
// Shapes are written outermost first. Sums over a row never depend on how many other rows are in
// the call, nor on the number of threads: a sequence gets the same bits alone and in a batch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <type_traits>

#include "compute/tensor.h"
#include "core/dtype.h"

namespace quern {

// One product of several that share their input: out[r, i] (+)= x[r] · weight[i] + bias[i].
struct MatmulPart {
  MutRows out;                  // [rows, weight.rows]
  const Weight* weight;         // [weight.rows, x.cols]
  std::span<const float> bias;  // [weight.rows], or empty
  bool accumulate = false;      // adds to what `out` holds: a residual
};

// The heads of each token's vector: [tokens, heads, head_dim], tokens `stride` floats apart.
template <class T>
struct Heads {
  T* data = nullptr;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t stride = 0;

  T* at(int64_t token, int64_t head) const noexcept {
    return data + token * stride + head * head_dim;
  }
  operator Heads<const T>() const noexcept requires(!std::is_const_v<T>) {
    return {data, tokens, heads, head_dim, stride};
  }
};
using MutHeads = Heads<float>;
using ConstHeads = Heads<const float>;

// How a page of the KV cache lies in memory, for one layer. A page holds `page_tokens` positions:
//   keys   [kv_heads, head_dim, page_tokens] of `dtype`: a dim of all positions side by side, so
//          that scores of neighbouring positions are neighbours in a vector register;
//   values [kv_heads, page_tokens, head_dim].
// Before keys and values of bytes there are floats, [kv_heads, 1 or 2, page_tokens]: scales, then
// zeros in U8. U8 is the Qwen release's 8-bit cache: x = scale · (q - zero), 0 <= q <= 255. I8 has
// a scale for each token and head: x = scale · q, -127 <= q <= 127.
// They lie in fours, which products of bytes take at once: keys [dims / 4, page_tokens] of four
// dims, values in panels of 64 dims, [page_tokens / 4, 64] of four positions, `dims` being head_dim
// rounded up to a multiple of 4, and the last panel as wide as is left. Keys are stored as 0 to 255
// (I8: q + 128), values as -128 to 127 (U8: q - 128).
struct KvLayout {
  DType dtype = DType::F32;  // F32, F16, BF16, U8 or I8
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  static constexpr int64_t page_tokens = 64;
  static constexpr int64_t panel_dims = 64;

  bool of_bytes() const noexcept { return dtype == DType::U8 || dtype == DType::I8; }
  int64_t dims() const noexcept { return of_bytes() ? (head_dim + 3) / 4 * 4 : head_dim; }
  // Where an element lies among a head's keys, or values.
  int64_t key_at(int64_t position, int64_t d) const noexcept {
    return of_bytes() ? (d / 4 * page_tokens + position) * 4 + d % 4 : d * page_tokens + position;
  }
  int64_t value_at(int64_t position, int64_t d) const noexcept {
    if (!of_bytes()) return position * head_dim + d;
    const int64_t panel = d / panel_dims * panel_dims, width = panel_width(panel);
    return panel * page_tokens + (position / 4 * width + d - panel) * 4 + position % 4;
  }
  int64_t panel_width(int64_t panel) const noexcept { return std::min(panel_dims, dims() - panel); }
  // Where a head's floats and elements begin in the block of keys, or of values, in bytes.
  int64_t floats_at(int64_t head) const noexcept {
    const int64_t floats = dtype == DType::U8 ? 2 : dtype == DType::I8 ? 1 : 0;
    return head * floats * page_tokens * int64_t{sizeof(float)};
  }
  int64_t elements_at(int64_t head) const noexcept {
    return floats_at(kv_heads) +
           head * page_tokens * dims() * static_cast<int64_t>(size_bytes(dtype));
  }
  int64_t block_bytes() const noexcept { return elements_at(kv_heads); }  // keys, or values
  int64_t layer_bytes() const noexcept {  // one layer's part of a page
    // The register that takes the last bytes of values may reach past them.
    const int64_t past = of_bytes() && dims() % 16 != 0 ? 64 : 0;
    return (2 * block_bytes() + past + 63) / 64 * 64;
  }
};

// One sequence's cache in one layer: page p of it holds the positions from p * page_tokens on.
struct KvPages {
  std::byte* const* pages = nullptr;  // page bases
  int64_t layer_offset = 0;           // bytes from a page's base to this layer's part
};

// New tokens of one sequence inside a batch: rows [first_row, first_row + count) of q, k, v stand
// at the cache positions [first_position, first_position + count).
struct AttentionSpan {
  KvPages kv;
  int64_t first_row = 0;
  int64_t count = 0;
  int64_t first_position = 0;
};

// What scores go through between q·kᵀ and the softmax.
struct AttentionRules {
  int64_t window = 0;  // a query at p sees j > p - window; 0: no limit
  float cap = 0;       // a score s becomes cap · tanh(s / cap); 0: no cap
  // [heads]: ALiBi (Press et al. 2021) adds slope · (j - p). Empty: none.
  std::span<const float> slopes;

  bool adjust() const noexcept { return cap > 0 || !slopes.empty(); }
};

enum class Activation : uint8_t { Silu, Gelu, GeluTanh };

// The dense causal attention of training: tokens of [batch, seq] one sequence after another.
struct TrainingAttention {
  int64_t batch = 0;
  int64_t seq = 0;
  float scale = 1;
  AttentionRules rules;
  float out_scale = 1;  // backward: what a dropout multiplied the elements of `out` that it kept by
  // [batch, seq]: the first position of the sequence that each may see, its document's first; never
  // falling within a sequence, never above the position itself. Empty: 0.
  std::span<const int32_t> starts;
};

// From hidden states to the logits that a loss is of: those of the product, plus a bias, times a
// scale, capped.
struct LossHead {
  const Weight* weight;              // [vocab, hidden]
  std::span<const float> bias = {};  // [vocab], or empty
  float scale = 1;
  float cap = 0;  // a logit x becomes cap · tanh(x / cap); 0: no cap
};

// The sum of -log p over the targets that count, and their number.
struct LossSum {
  double loss = 0;
  int64_t count = 0;
};

// One step of AdamW (Loshchilov, Hutter 2019) over some parameters.
struct AdamWStep {
  double learning_rate = 0;
  double beta_1 = 0.9, beta_2 = 0.95;
  double epsilon = 1e-6;      // added outside the root, after bias correction
  double weight_decay = 0;    // decoupled
  double gradient_scale = 1;  // gradients are multiplied by it as they are read: clipping
  int64_t step = 1;           // 1 for the first
};

// Which elements a dropout keeps depends on seed, stream and the element's index alone.
struct Dropout {
  float probability = 0;
  uint64_t seed = 0;
  uint64_t stream = 0;  // the place in model and run: layer, step, micro-batch
};

class Backend {
 public:
  virtual ~Backend() = default;

  // Zeroed memory. Throws NoResources naming the size if there is not enough.
  virtual Tensor allocate(DType dtype, const Shape& shape) = 0;

  // out[t] = table[ids[t]] as float.                              out: [tokens, hidden]
  // Ids were checked where they entered.
  virtual void embed(MutRows out, const Weight& table, std::span<const int32_t> ids) = 0;

  // out[r, i] = x[r, i] · (weight[i] + offset) / sqrt(mean over i of x[r, i]² + eps).
  // RMSNorm (Zhang, Sennrich 2019). `out` may be `x`.                            x, out: [rows, dim]
  virtual void rms_norm(MutRows out, ConstRows x, std::span<const float> weight, float eps,
                        float offset = 0) = 0;

  // The same over each head of each token, in place: Qwen3's QK-norm.
  virtual void rms_norm_heads(MutHeads x, std::span<const float> weight, float eps,
                              float offset = 0) = 0;

  // out = (x - mean) / sqrt(variance + eps) · weight (+ bias), of each row.      x, out: [rows, dim]
  // LayerNorm (Ba et al. 2016). `bias` may be empty, `out` may be `x`.
  virtual void layer_norm(MutRows out, ConstRows x, std::span<const float> weight,
                          std::span<const float> bias, float eps) = 0;

  // Every part: out = x · weightᵀ (+ bias) (+ out).               x: [rows, cols]
  virtual void matmul(ConstRows x, std::span<const MatmulPart> parts) = 0;

  // Rotates each head in place (RoPE, Su et al. 2021, half-split): with h = cos.cols, dims j and
  // j + h become (a·cos - b·sin, b·cos + a·sin); dims from 2h on stay.      cos, sin: [tokens, h]
  virtual void rope(MutHeads x, ConstRows cos, ConstRows sin) = 0;

  // Stores keys and values of the spans' new tokens in the cache: [tokens, kv_heads, head_dim].
  // U8: one scale and zero for each span, head, and keys or values, over all new positions.
  virtual void kv_store(const KvLayout& layout, std::span<const AttentionSpan> spans, ConstHeads k,
                        ConstHeads v) = 0;

  // Causal attention of each span's queries over its sequence's cache, new tokens included:
  // out = softmax(q·kᵀ · scale[row]) · v, head h reading kv head h / (heads / kv_heads).
  // A query at p sees positions j with p - window < j <= p. Online softmax by blocks (Milakov,
  // Gimelshein 2018; Dao et al. 2022): no score matrix.              q, out: [tokens, heads, d]
  virtual void attention(MutHeads out, ConstHeads q, const KvLayout& layout,
                         std::span<const AttentionSpan> spans, std::span<const float> scale,
                         const AttentionRules& rules) = 0;

  // out = act(x), or act(x) · factor: SwiGLU, GeGLU (Shazeer 2020).              all: [rows, ffn]
  // `factor` may be empty, `out` may be `x`.
  virtual void activate(MutRows out, ConstRows x, ConstRows factor, Activation activation) = 0;

  // x = value.
  virtual void fill(MutRows x, float value) = 0;

  // x = x · factor, in place.
  virtual void scale(MutRows x, float factor) = 0;

  // x = x cut to [-limit, limit], in place.
  virtual void clamp(MutRows x, float limit) = 0;

  // x = cap · tanh(x / cap), in place.
  virtual void soft_cap(MutRows x, float cap) = 0;

  // out += factor · x.                                            both: [rows, cols]
  virtual void add(MutRows out, ConstRows x, float factor) = 0;

  // out[rows[i]] += weights[i] · x[i].                            x: [count, cols]
  virtual void add_rows(MutRows out, ConstRows x, std::span<const int32_t> rows,
                        std::span<const float> weights) = 0;

  // x[r] = x[r] · sigmoid(gate[r, 0]), in place.                  gate: [rows, 1]
  virtual void gate_rows(MutRows x, ConstRows gate) = 0;

  // out = x.                                                      both: [rows, cols]
  virtual void copy(MutRows out, ConstRows x) = 0;

  // out[i] = x[rows[i]].                                          out: [count, cols]
  virtual void gather_rows(MutRows out, ConstRows x, std::span<const int32_t> rows) = 0;

  // ---- Training ----
  // Gradients are named d_x. "+=" adds to what is there, "=" overwrites. The order of every sum is
  // fixed by the shapes: the same bytes for any number of threads. A backend that does not train
  // throws Unsupported. Weights may be of any format: what is frozen keeps that of its file.

  // Whether products round their factors to bfloat16.
  virtual bool rounds_products() const noexcept { return false; }

  // d_x = (d_x +) d_out · weight.                  d_x: [rows, in], d_out: [rows, out]
  virtual void matmul_backward(MutRows d_x, ConstRows d_out, const Weight& weight, bool accumulate);

  // d_weight += d_outᵀ · x, d_bias += sum of d_out's rows; either may be empty.
  //                                                d_weight: [out, in], x: [rows, in]
  virtual void matmul_backward_weight(MutRows d_weight, std::span<float> d_bias, ConstRows d_out,
                                      ConstRows x);

  // Gradient of rms_norm with input x: d_x +=, d_weight += unless it is empty.           all: [rows, dim]
  virtual void rms_norm_backward(MutRows d_x, std::span<float> d_weight, ConstRows d_out,
                                 ConstRows x, std::span<const float> weight, float eps,
                                 float offset = 0);

  // Gradient of layer_norm with input x: d_x +=, d_weight += and d_bias += unless they are empty.
  virtual void layer_norm_backward(MutRows d_x, std::span<float> d_weight, std::span<float> d_bias,
                                   ConstRows d_out, ConstRows x, std::span<const float> weight,
                                   float eps);

  // Gradient of rms_norm_heads with input x: `d` holds d_out and becomes d_x; d_weight +=
  // unless it is empty.
  virtual void rms_norm_heads_backward(MutHeads d, std::span<float> d_weight, ConstHeads x,
                                       std::span<const float> weight, float eps, float offset = 0);

  // Gradient of rope: `d` holds d_out and becomes d_x, turned by the opposite angle.
  virtual void rope_backward(MutHeads d, ConstRows cos, ConstRows sin);

  // Gradient of activate: d_x =, d_factor = where there is a factor; they may be x and factor.
  //                                                                             all: [rows, ffn]
  virtual void activate_backward(MutRows d_x, MutRows d_factor, ConstRows d_out, ConstRows x,
                                 ConstRows factor, Activation activation);

  // d = d · (1 - (y / cap)²), of soft_cap with output y.        both: [rows, cols]
  virtual void soft_cap_backward(MutRows d, ConstRows y, float cap);

  // d = d where |x| < limit, else 0: of clamp with output x.                    both: [rows, cols]
  virtual void clamp_backward(MutRows d, ConstRows x, float limit);

  // Gradient of embed: d_table[ids[t]] += d_out[t], t rising.
  virtual void embed_backward(MutRows d_table, ConstRows d_out, std::span<const int32_t> ids);

  // Attention without a cache: out = softmax(q·kᵀ · scale) · v over the visible positions.
  // log_sum: [tokens, heads], log of the softmax's denominator, for the backward pass.
  virtual void attention_training(MutHeads out, MutRows log_sum, ConstHeads q, ConstHeads k,
                                  ConstHeads v, const TrainingAttention& shape);

  // d_q =, d_k =, d_v =, which may be q, k and v; probabilities are computed again block by block
  // (FlashAttention-2, Dao 2023).
  virtual void attention_training_backward(MutHeads d_q, MutHeads d_k, MutHeads d_v,
                                           ConstHeads d_out, ConstHeads out, ConstRows log_sum,
                                           ConstHeads q, ConstHeads k, ConstHeads v,
                                           const TrainingAttention& shape);

  // The loss of the head's logits, fused with the product in blocks of tokens, so that the logits
  // never exist as a whole. targets[r] is what hidden[r] should predict, already shifted;
  // negative ones don't count. With gradients of loss · scale: d_hidden =, d_weight += and d_bias
  // += unless they are empty. With d_hidden empty the loss alone.
  //                                                  hidden, d_hidden: [tokens, hidden]
  virtual LossSum cross_entropy(MutRows d_hidden, MutRows d_weight, std::span<float> d_bias,
                                ConstRows hidden, const LossHead& head,
                                std::span<const int32_t> targets, float scale);

  // The sum of squares, added up in double.
  virtual double squared_norm(std::span<const float> x);

  // m = β1 m + (1 - β1) g, v = β2 v + (1 - β2) g²,
  // p = p (1 - lr · decay) - lr · (m / (1 - β1^t)) / (sqrt(v / (1 - β2^t)) + ε).
  virtual void adamw(std::span<float> p, std::span<const float> g, std::span<float> m,
                     std::span<float> v, const AdamWStep& step);

  // x = 0.
  virtual void clear(std::span<float> x);

  // out = x rounded to bfloat16, and back.
  virtual void narrow(std::span<uint16_t> out, std::span<const float> x);
  virtual void widen(std::span<float> out, std::span<const uint16_t> x);

  // x = x · kept / (1 - probability), in place; its own backward.
  virtual void dropout(MutRows x, const Dropout& dropout);

 protected:
  Backend() = default;
};

}  // namespace quern
