// Products of pairs of bfloat16, for CPUs with AVX512_BF16; see kernels.h.
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
// GCC 12's own AVX-512 header trips these two warnings (its bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")

namespace quern::cpu {
namespace {

// The order matters.
// clang-format off
#include "compute/cpu/simd_avx512.inl"
#include "compute/cpu/vector_math.inl"
#include "compute/cpu/bf16_pairs.inl"
#include "compute/cpu/matmul.inl"
#include "compute/cpu/matmul_blocks.inl"
#include "compute/cpu/matmul_several.inl"
#include "compute/cpu/matmul_pairs.inl"
// clang-format on

}  // namespace

const Bf16PairKernels* avx512_bf16_pair_kernels() noexcept {
  static constexpr Bf16PairKernels kTable = {
      .products = product_table(few_rows_of_pairs, many_rows_of_pairs),
      .round_row = round_row,
  };
  return &kTable;
}

}  // namespace quern::cpu

#pragma GCC pop_options
#else
namespace quern::cpu {
const Bf16PairKernels* avx512_bf16_pair_kernels() noexcept { return nullptr; }
}  // namespace quern::cpu
#endif
