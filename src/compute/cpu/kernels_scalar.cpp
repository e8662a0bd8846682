// The kernels compiled for Scalar; see kernels.h.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "compute/cpu/kernels.h"
#include "compute/cpu/variants.h"
#include "core/dtype.h"

namespace quern::cpu {
namespace {

// clang-format off: the order matters
#include "compute/cpu/simd_scalar.inl"
#include "compute/cpu/vector_math.inl"
#include "compute/cpu/matmul.inl"
#include "compute/cpu/elementwise.inl"
#include "compute/cpu/attention.inl"
// clang-format on

}  // namespace

const Kernels& scalar_kernels() noexcept {
  static constexpr Kernels kTable = {
      .isa = Isa::Scalar,
      .matmul = matmul,
      .matmul_scratch_floats = matmul_scratch_floats,
      .matmul_few_rows = Vec::kTileRows,
      .matmul_block_rows = kBlockRows,
      .matmul_block_cols = kBlockCols,
      .rms_norm = rms_norm,
      .rope = rope,
      .silu_mul = silu_mul,
      .decode_row = decode_row,
      .attention = attention,
      .attention_scratch_floats = attention_scratch_floats,
      .fma_loop = fma_loop,
      .fma_flops_per_round = int64_t{2} * kChains * Vec::kLanes,
      .read_all = read_all,
  };
  return kTable;
}

}  // namespace quern::cpu
