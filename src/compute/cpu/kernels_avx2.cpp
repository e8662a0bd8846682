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
#include <numeric>
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

// The order matters.
// clang-format off
#include "compute/cpu/simd_avx2.inl"
#include "compute/cpu/kernels.inl"
// clang-format on

}  // namespace

const Kernels& avx2_kernels() noexcept {
  static constexpr Kernels kTable = make_table(Isa::Avx2);
  return kTable;
}

}  // namespace quern::cpu

#pragma GCC pop_options
#else
namespace quern::cpu {
const Kernels& avx2_kernels() noexcept { return scalar_kernels(); }
}  // namespace quern::cpu
#endif
