// All forward kernels, over the vector type Vec that was included before, and their table.
// The order matters.
// clang-format off
#include "compute/cpu/vector_math.inl"
#include "compute/cpu/matmul.inl"
#include "compute/cpu/matmul_blocks.inl"
#include "compute/cpu/matmul_several.inl"
#include "compute/cpu/matmul_formats.inl"
#include "compute/cpu/elementwise.inl"
#include "compute/cpu/attention.inl"
#include "compute/cpu/attention_bytes.inl"
#include "compute/cpu/attention_decode.inl"
// clang-format on

constexpr Kernels make_table(Isa isa) noexcept {
  return {
      .isa = isa,
      .products = product_table(matmul_few_rows, matmul_many_rows),
      .rms_norm = rms_norm,
      .layer_norm = layer_norm,
      .rope = rope,
      .activate = activate,
      .decode_row = decode_row,
      .attention = attention,
      .attention_scratch_floats = attention_scratch_floats,
      .attention_parts = attention_parts,
      .attention_merge = attention_merge,
      .fma_loop = fma_loop,
      .fma_flops_per_round = int64_t{2} * kChains * Vec::kLanes,
      .read_all = read_all,
  };
}
