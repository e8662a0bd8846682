// The kernels compiled for Avx2; see kernels.h.
#include "compute/cpu/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "compute/cpu/variants.h"
#include "core/dtype.h"

#if defined(__x86_64__)
// Everything the kernels need was included above: only their own bodies, which have internal
// linkage, are compiled for this instruction set, and no inline function of a library is.
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

namespace quern::cpu {
namespace {

// clang-format off: the order matters
#include "compute/cpu/simd_avx2.inl"
#include "compute/cpu/vector_math.inl"
#include "compute/cpu/matmul.inl"
#include "compute/cpu/elementwise.inl"
#include "compute/cpu/attention.inl"
// clang-format on

}  // namespace

const Kernels& avx2_kernels() noexcept {
  static constexpr Kernels kTable = {
      .isa = Isa::Avx2,
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

#pragma GCC pop_options
#else
namespace quern::cpu {
const Kernels& avx2_kernels() noexcept { return scalar_kernels(); }
}  // namespace quern::cpu
#endif
