// The kernels compiled for Avx512; see kernels.h.
#include "compute/cpu/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
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
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")

namespace quern::cpu {
namespace {

// The order matters.
// clang-format off
#include "compute/cpu/simd_avx512.inl"
#include "compute/cpu/kernels.inl"
// clang-format on

}  // namespace

const Kernels& avx512_kernels() noexcept {
  static constexpr Kernels kTable = make_table(Isa::Avx512);
  return kTable;
}

}  // namespace quern::cpu

#pragma GCC pop_options
#else
namespace quern::cpu {
const Kernels& avx512_kernels() noexcept { return scalar_kernels(); }
}  // namespace quern::cpu
#endif
