// Products of packed weights compiled for AVX-512's integer dot products, in registers of 256 bits;
// see quant_kernels.h.
#include "compute/cpu/quant_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
// As in kernels_avx2.cpp: only the bodies below are compiled for this instruction set.
// GCC 12's own AVX-512 header trips these two warnings (its bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")

namespace quern::cpu {
namespace {

struct Ints {
  static __m256i first_bytes(__m256i w, __m256i x) noexcept {
    return _mm256_dpbusd_epi32(_mm256_setzero_si256(), w, x);
  }
  static __m256i add_bytes(__m256i sum, __m256i w, __m256i x) noexcept {
    return _mm256_dpbusd_epi32(sum, w, x);
  }
  static __m256i finish_bytes(__m256i sum) noexcept { return sum; }
  static __m256i first_pairs(__m256i w, __m256i x) noexcept { return first_bytes(w, x); }
  static __m256i add_pairs(__m256i sum, __m256i w, __m256i x) noexcept {
    return add_bytes(sum, w, x);
  }
  static __m256i first_words(__m256i w, __m256i x) noexcept {
    return _mm256_dpwssd_epi32(_mm256_setzero_si256(), w, x);
  }
  static __m256i add_words(__m256i sum, __m256i w, __m256i x) noexcept {
    return _mm256_dpwssd_epi32(sum, w, x);
  }
};

// clang-format off: the order matters
#include "compute/cpu/quant_round.inl"
#include "compute/cpu/quant_strip.inl"
// clang-format on

bool has_instructions() noexcept {
  return supported(Isa::Avx512) && __builtin_cpu_supports("avx512vnni") != 0;
}

}  // namespace

const QuantKernels& quant_vnni() noexcept {
  static constexpr QuantKernels kTable = {"vnni", has_instructions, round_row, multiply};
  return kTable;
}

}  // namespace quern::cpu

#pragma GCC pop_options
#else
namespace quern::cpu {
const QuantKernels& quant_vnni() noexcept { return quant_scalar(); }
}  // namespace quern::cpu
#endif
