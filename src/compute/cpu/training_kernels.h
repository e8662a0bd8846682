// The training kernels of one instruction set, as kernels.h has those of inference: bodies in
// gemm.inl, attention_training.inl and training.inl, compiled once for each instruction set
// (training_scalar.cpp, ...). Each works on the piece of one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "compute/backend.h"
#include "core/isa.h"

namespace quern::cpu {

// A matrix whose element (i, j) is data[i * row_step + j * col_step]; one of the steps is 1. So a
// transposed matrix needs no copy.
struct Strided {
  const float* data;
  int64_t row_step;
  int64_t col_step;
};

// out[m, n] (+)= a[m, depth] · b[depth, n] (+ bias[n]), with `b` packed into panels of columns.
struct GemmPart {
  float* out;
  int64_t out_step;  // floats from a row of `out` to the next
  int64_t n;
  int64_t first_panel;  // of its columns
  const float* bias;    // or null
  bool accumulate;
};
// Products that share `a`, their panels one after the other. Factors are packed before they are
// multiplied: the left one into panels of tile_rows rows, the right one into those of panel_cols
// columns. All memory is 64-byte aligned.
struct Gemm {
  int64_t m, depth;
  std::span<const GemmPart> parts;
  std::byte* left;
  std::byte* right;
  int64_t tiles, panels;
};

// The heads of one sequence that read one kv head. The views begin at the sequence's first token.
struct AttentionTask {
  ConstHeads q, k, v;
  int64_t seq;
  int64_t kv_head;
  float scale;
  AttentionRules rules;
  const int32_t* starts;  // [seq], or null
  float out_scale;        // backward: see TrainingAttention
};
struct AttentionGradients {
  ConstHeads d_out, out;
  ConstRows log_sum;
  MutHeads d_q, d_k, d_v;
};

// AdamWStep with what is the same for all elements worked out.
struct AdamWFactors {
  float keep;            // 1 - lr · decay
  float step_size;       // lr / (1 - β1^t)
  float beta_1, rest_1;  // β1 and 1 - β1
  float beta_2, rest_2;
  float root_scale;  // 1 / sqrt(1 - β2^t)
  float epsilon;
  float gradient_scale;
};

// Products, with factors rounded to one type and sums in float.
struct GemmKernels {
  int64_t panel_cols, tile_rows;
  // Of a factor with `lines` rows or columns, whole panels of them.
  int64_t (*packed_bytes)(int64_t lines, int64_t depth) noexcept;
  // Pack the `width` columns of `b` that begin at b.data as a panel; the `height` rows of `a` that
  // begin at a.data as panels, the first of them `tile`.
  void (*pack_right)(const Gemm& gemm, int64_t panel, const Strided& b, int64_t width) noexcept;
  void (*pack_left)(const Gemm& gemm, int64_t tile, const Strided& a, int64_t height) noexcept;

  // The tiles [tile_begin, tile_end) of rows and panels [panel_begin, panel_end). Any division of
  // the output gives the same bits: an output is the sum over stretches of the depth, one after the
  // other, each summed in order.
  void (*gemm)(const Gemm& gemm, int64_t tile_begin, int64_t tile_end, int64_t panel_begin,
               int64_t panel_end) noexcept;
  int64_t (*block_panels)(int64_t depth) noexcept;  // so many stay in the last cache
};

// See Backend::attention_training; `scratch` is 64-byte aligned.
struct AttentionKernels {
  void (*forward)(const AttentionTask& task, MutHeads out, MutRows log_sum,
                  float* scratch) noexcept;
  void (*backward)(const AttentionTask& task, const AttentionGradients& gradients,
                   float* scratch) noexcept;
  int64_t (*forward_scratch_floats)(int64_t seq, int64_t head_dim) noexcept;
  int64_t (*backward_scratch_floats)(int64_t seq, int64_t head_dim, int64_t group) noexcept;
};

constexpr int64_t kPanelDoubles = 16, kDepthDoubles = 48;

struct TrainingKernels {
  GemmKernels products;

  AttentionKernels attention;

  // d_x += the gradient of one row; d_weight +=.
  void (*rms_norm_backward)(float* d_x, float* d_weight, const float* d_out, const float* x,
                            const float* weight, int64_t dim, float eps, float offset) noexcept;
  void (*layer_norm_backward)(float* d_x, float* d_weight, float* d_bias, const float* d_out,
                              const float* x, const float* weight, int64_t dim, float eps) noexcept;
  void (*rope_backward)(float* head, const float* cos, const float* sin, int64_t half) noexcept;
  // Without a factor both it and d_factor are null.
  void (*activate_backward)(float* d_x, float* d_factor, const float* d_out, const float* x,
                            const float* factor, int64_t count, Activation activation) noexcept;
  void (*add)(float* out, const float* x, int64_t count) noexcept;  // out += x

  // -log softmax(logits)[target]; turns logits into their gradient times `scale`.
  double (*cross_entropy_row)(float* logits, int64_t count, int64_t target, float scale) noexcept;
  double (*squared_norm)(const float* x, int64_t count) noexcept;
  void (*narrow)(uint16_t* out, const float* x, int64_t count) noexcept;  // to bfloat16
  void (*widen)(float* out, const uint16_t* x, int64_t count) noexcept;
  void (*adamw)(float* p, const float* g, float* m, float* v, int64_t count,
                const AdamWFactors& factors) noexcept;

  // out[rows, cols] -= a[rows, depth] · b[depth, cols], in double; rows of `out` are `out_step`
  // apart, those of `a` kDepthDoubles, which is the largest depth. `b` is in panels of
  // kPanelDoubles columns, [panel][depth][column], the last one filled up.
  void (*subtract_product)(double* out, int64_t out_step, const double* a, const double* b,
                           int64_t rows, int64_t depth, int64_t cols) noexcept;
};

const TrainingKernels& training_kernels(Isa isa) noexcept;

// What computes with factors rounded to bfloat16 in place of those above.
struct Bf16Kernels {
  GemmKernels products;
  AttentionKernels attention;
  // For measuring the peak: `rounds` times dot_flops_per_round, without memory traffic.
  float (*dot_loop)(int64_t rounds) noexcept;
  int64_t dot_flops_per_round;
};

// Null where the instruction set or the CPU has no bfloat16 products.
const Bf16Kernels* bf16_kernels(Isa isa) noexcept;

const TrainingKernels& scalar_training_kernels() noexcept;
const TrainingKernels& avx2_training_kernels() noexcept;
const TrainingKernels& avx512_training_kernels() noexcept;
const Bf16Kernels* avx512_bf16_kernels() noexcept;

}  // namespace quern::cpu
