// All training kernels in float, over the vector type Vec that was included before, and their
// table.
// The order matters.
// clang-format off
#include "compute/cpu/vector_math.inl"
#include "compute/cpu/gemm.inl"
#include "compute/cpu/attention_training.inl"
#include "compute/cpu/training.inl"
#include "compute/cpu/products_f64.inl"
// clang-format on

constexpr TrainingKernels make_table() noexcept {
  return {
      .products = gemm_table<FloatPanels>(),
      .attention = attention_table<FloatFactors>(),
      .rms_norm_backward = rms_norm_backward,
      .layer_norm_backward = layer_norm_backward,
      .rope_backward = rope_backward,
      .activate_backward = activate_backward,
      .add = add,
      .cross_entropy_row = cross_entropy_row,
      .squared_norm = squared_norm,
      .narrow = narrow,
      .widen = widen,
      .adamw = adamw,
      .subtract_product = subtract_product,
  };
}
