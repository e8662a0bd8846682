// All training kernels in float, over the vector type Vec that was included before, and their table.
// clang-format off: the order matters
#include "compute/cpu/vector_math.inl"
#include "compute/cpu/gemm.inl"
#include "compute/cpu/attention_training.inl"
#include "compute/cpu/training.inl"
// clang-format on

constexpr TrainingKernels make_table() noexcept {
  return {
      .gemm = gemm<FloatPanels>,
      .gemm_block_rows = kGemmRows,
      .gemm_block_cols = kGemmCols,
      .gemm_tile_rows = kTileRows,
      .gemm_tile_cols = kTileCols,
      .gemm_scratch_floats = gemm_scratch_floats<FloatPanels>(),
      .attention = attention_training,
      .attention_backward = attention_training_backward,
      .attention_scratch_floats = attention_training_scratch_floats,
      .attention_backward_scratch_floats = attention_training_backward_scratch_floats,
      .rms_norm_backward = rms_norm_backward,
      .rope_backward = rope_backward,
      .silu_mul_backward = silu_mul_backward,
      .add = add,
      .cross_entropy_row = cross_entropy_row,
      .squared_norm = squared_norm,
      .adamw = adamw,
  };
}
