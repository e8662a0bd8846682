// The vocabulary of operations: what a model is written in, and what a machine has to provide. The
// CPU's is compute/cpu; another backend fits behind the same methods.
//
// Shapes are written outermost first. Sums over a row never depend on how many other rows are in
// the call, nor on the number of threads: a sequence gets the same bits alone and in a batch.
#pragma once

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
//   keys   [kv_heads, head_dim, page_tokens] of `dtype`: a dim of all positions side by side, so that
//          scores of neighbouring positions are neighbours in a vector register;
//   values [kv_heads, page_tokens, head_dim];
//   U8 only: float scales and zeros after them, keys' [2][kv_heads, page_tokens], then values'.
// U8 is the Qwen release's 8-bit cache: x = scale · (q - zero), zero a float.
struct KvLayout {
  DType dtype = DType::F32;  // F32, F16, BF16 or U8
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  static constexpr int64_t page_tokens = 64;

  int64_t block_bytes() const noexcept {  // keys, or values
    return kv_heads * page_tokens * head_dim * static_cast<int64_t>(size_bytes(dtype));
  }
  int64_t scale_floats() const noexcept {  // scales and zeros of keys, or of values
    return dtype == DType::U8 ? 2 * kv_heads * page_tokens : 0;
  }
  int64_t layer_bytes() const noexcept {  // one layer's part of a page
    const int64_t bytes = 2 * (block_bytes() + 4 * scale_floats());
    return (bytes + 63) / 64 * 64;
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

class Backend {
 public:
  virtual ~Backend() = default;

  // Zeroed memory. Throws NoResources naming the size if there is not enough.
  virtual Tensor allocate(DType dtype, const Shape& shape) = 0;

  // out[t] = table[ids[t]] as float.                              out: [tokens, hidden]
  // Ids were checked where they entered.
  virtual void embed(MutRows out, const Weight& table, std::span<const int32_t> ids) = 0;

  // out[r, i] = x[r, i] · weight[i] / sqrt(mean over i of x[r, i]² + eps).      x, out: [rows, dim]
  // RMSNorm (Zhang, Sennrich 2019). `out` may be `x`.
  virtual void rms_norm(MutRows out, ConstRows x, std::span<const float> weight, float eps) = 0;

  // The same over each head of each token, in place: Qwen3's QK-norm.
  virtual void rms_norm_heads(MutHeads x, std::span<const float> weight, float eps) = 0;

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
  // A query at p sees positions j with p - window < j <= p; window 0: no limit. Online softmax by
  // blocks (Milakov, Gimelshein 2018; Dao et al. 2022): no score matrix.    q, out: [tokens, heads,
  // d]
  virtual void attention(MutHeads out, ConstHeads q, const KvLayout& layout,
                         std::span<const AttentionSpan> spans, std::span<const float> scale,
                         int64_t window) = 0;

  // out = silu(gate) · up, silu(x) = x / (1 + exp(-x)).  SwiGLU (Shazeer 2020).  all: [rows, ffn]
  // `out` may be `gate`.
  virtual void silu_mul(MutRows out, ConstRows gate, ConstRows up) = 0;

  // out = x.                                                      both: [rows, cols]
  virtual void copy(MutRows out, ConstRows x) = 0;

  // out[i] = x[rows[i]].                                          out: [count, cols]
  virtual void gather_rows(MutRows out, ConstRows x, std::span<const int32_t> rows) = 0;

 protected:
  Backend() = default;
};

}  // namespace quern
