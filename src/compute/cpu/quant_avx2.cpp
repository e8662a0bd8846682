// Products of packed weights compiled for AVX2; see quant_kernels.h.
#include "compute/cpu/quant_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
// As in kernels_avx2.cpp: only the bodies below are compiled for this instruction set.
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

namespace quern::cpu {
namespace {

// Products of unsigned bytes are added up in 16 bits: 16 of 15 · 128 at most fit.
struct Ints {
  static __m256i first_bytes(__m256i w, __m256i x) noexcept { return _mm256_maddubs_epi16(w, x); }
  static __m256i add_bytes(__m256i sum, __m256i w, __m256i x) noexcept {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
  }
  static __m256i finish_bytes(__m256i sum) noexcept {
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
  }
  static __m256i add_words(__m256i sum, __m256i w, __m256i x) noexcept {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(w, x));
  }
};

// clang-format off: the order matters
#include "compute/cpu/quant_round.inl"
#include "compute/cpu/quant_strip.inl"
// clang-format on

bool has_instructions() noexcept { return supported(Isa::Avx2); }

}  // namespace

const QuantKernels& quant_avx2() noexcept {
  static constexpr QuantKernels kTable = {"avx2", has_instructions, round_row, multiply};
  return kTable;
}

}  // namespace quern::cpu

#pragma GCC pop_options
#else
namespace quern::cpu {
const QuantKernels& quant_avx2() noexcept { return quant_scalar(); }
}  // namespace quern::cpu
#endif
