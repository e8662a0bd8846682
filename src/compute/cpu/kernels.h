// The kernels of one instruction set, single-threaded, each over the piece of work that one thread
// takes. Kernel bodies are written once (*.inl) over a small vector type, and compiled once for
// each instruction set (kernels_scalar.cpp, kernels_avx2.cpp, kernels_avx512.cpp); reference.h has
// the plain definitions that judge them all. To add a kernel: its body in an .inl, a row in this
// table.
#pragma once

#include <cstdint>
#include <span>

#include "compute/backend.h"
#include "core/isa.h"

namespace quern::cpu {

// What a stretch of positions adds to the attention of the heads of one kv head.
struct AttentionPart {
  float* sums;     // [group, head_dim], values weighted by e^(score - largest)
  float* largest;  // [group]
  float* total;    // [group], of the weights

  static constexpr int64_t floats(int64_t group, int64_t dim) noexcept { return group * (dim + 2); }
  static AttentionPart at(float* memory, int64_t group, int64_t dim) noexcept {
    return {memory, memory + group * dim, memory + group * (dim + 1)};
  }
};

// Positions of a part: a number of its own, so that sums don't depend on the number of threads.
constexpr int64_t kAttentionPart = 512;

// Blocks of a product: out[r, i] (+)= x[r] · w[i] + bias[i] for the weight rows [begin, end).
// The sum over cols is taken by stretches of 512, each in lanes: lane l adds the columns l, l + W,
// l + 2W, ... in order, then the lanes are added in a fixed tree to the sum of the stretches
// before; so an output does not depend on how many rows of x there are.
struct ProductKernels {
  // At most most_rows rows, the weight not GPTQ:
  void (*few_rows)(const MatmulPart& part, ConstRows x, int64_t begin, int64_t end) noexcept;
  int64_t most_rows;

  // Any number of rows, in two steps. The first repacks x, a tile of most_rows rows from `row` on
  // at a time, into packed_floats(). The second takes at most block_cols weight rows a call;
  // `scratch` has scratch_floats().
  void (*pack)(float* packed, ConstRows x, int64_t row) noexcept;
  int64_t (*packed_floats)(int64_t rows, int64_t cols) noexcept;
  void (*many_rows)(const MatmulPart& part, const float* packed, int64_t rows, int64_t cols,
                    int64_t begin, int64_t end, float* scratch) noexcept;
  int64_t block_cols;
  int64_t (*scratch_floats)(int64_t rows) noexcept;
};

struct Kernels {
  Isa isa;

  ProductKernels products;  // of weights in any format but packed

  void (*rms_norm)(float* out, const float* x, const float* weight, int64_t dim, float eps,
                   float offset) noexcept;
  void (*layer_norm)(float* out, const float* x, const float* weight, const float* bias,
                     int64_t dim, float eps) noexcept;  // `bias` may be null
  void (*rope)(float* head, const float* cos, const float* sin, int64_t half) noexcept;
  void (*activate)(float* out, const float* x, const float* factor, int64_t count,
                   Activation activation) noexcept;  // `factor` may be null
  void (*decode_row)(float* out, const Weight& weight, int64_t row) noexcept;

  // Queries [first, first + count) of a span, all heads that read kv head `kv_head`.
  void (*attention)(MutHeads out, ConstHeads q, const KvLayout& layout, const AttentionSpan& span,
                    const float* scale, const AttentionRules& rules, int64_t kv_head, int64_t first,
                    int64_t count, float* scratch) noexcept;
  int64_t (*attention_scratch_floats)(const KvLayout& layout, int64_t group) noexcept;

  // One query of a span over a part of the past, the positions [begin, end), read in their stored
  // form: softmaxes that are not divided by their totals yet. At most kAttentionQueries kv heads,
  // [first_head, end_head): `part` is the first one's, those of the others lie `part_step` floats
  // apart. Parts are put together by attention_merge.
  void (*attention_parts)(const AttentionPart& part, int64_t part_step, ConstHeads q,
                          const KvLayout& layout, const AttentionSpan& span, float scale,
                          const AttentionRules& rules, int64_t first_head, int64_t end_head,
                          int64_t begin, int64_t end, float* scratch) noexcept;
  // out [group, head_dim], of parts that follow each other in memory and positions.
  void (*attention_merge)(float* out, const AttentionPart& first, int64_t parts, int64_t group,
                          int64_t head_dim) noexcept;

  // fp32 multiply-adds without memory traffic: `rounds` times flops_per_round. For measuring peaks.
  float (*fma_loop)(int64_t rounds) noexcept;
  int64_t fma_flops_per_round;
  // Sum of all bytes as 64-bit words, read in several streams. For measuring bandwidth.
  uint64_t (*read_all)(const std::byte* data, int64_t bytes) noexcept;
};

// Queries that one attention call takes at most.
constexpr int64_t kAttentionQueries = 16;

const Kernels& kernels(Isa isa) noexcept;

// Products of BF16 weights with inputs rounded to bfloat16, two columns in a lane of 32 bits: to
// the products, a column is such a pair.
struct Bf16PairKernels {
  ProductKernels products;
  // Rounds a row to nearest even.                                     out: [cols / 2], as floats
  void (*round_row)(float* out, const float* x, int64_t cols) noexcept;
};

// Null where the instruction set or the CPU has no such products (AVX512_BF16).
const Bf16PairKernels* bf16_pair_kernels(Isa isa) noexcept;

}  // namespace quern::cpu
