// Products of bfloat16 pairs, for CPUs with AVX512_BF16; see training_kernels.h.
#include "compute/cpu/training_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

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
#include "compute/cpu/gemm.inl"
#include "compute/cpu/gemm_bf16.inl"
#include "compute/cpu/attention_training.inl"
#include "compute/cpu/attention_training_bf16.inl"
// clang-format on

}  // namespace

const Bf16Kernels* avx512_bf16_kernels() noexcept {
  static constexpr Bf16Kernels kTable = {
      .products = gemm_table<Bf16Panels>(),
      .attention = attention_table<Bf16Factors>(),
      .dot_loop = bf16_loop,
      .dot_flops_per_round = int64_t{4} * kBf16Chains * Vec::kLanes,
  };
  return &kTable;
}

}  // namespace quern::cpu

#pragma GCC pop_options
#else
namespace quern::cpu {
const Bf16Kernels* avx512_bf16_kernels() noexcept { return nullptr; }
}  // namespace quern::cpu
#endif
