// Products of packed weights compiled for AVX2; see quant_kernels.h.
#include "compute/cpu/quant_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
// As in kernels_avx2.cpp: only the bodies below are compiled for this instruction set.
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

namespace quern::cpu {
namespace {

// GCC takes sums of many terms apart and adds them up in another order, for which it keeps dozens
// of products on the stack. It does not look into these.
[[gnu::always_inline]] inline __m256i add_16(__m256i a, __m256i b) noexcept {
  __m256i sum;
  asm("vpaddw %2, %1, %0" : "=x"(sum) : "x"(a), "x"(b));
  return sum;
}
[[gnu::always_inline]] inline __m256i add_32(__m256i a, __m256i b) noexcept {
  __m256i sum;
  asm("vpaddd %2, %1, %0" : "=x"(sum) : "x"(a), "x"(b));
  return sum;
}

#include "compute/cpu/quant_lanes.inl"

// Products of unsigned bytes are added up in 16 bits: 16 of 15 · 128 at most fit.
struct Lanes : LanesOf8 {
  static Ints first_bytes(Ints w, Ints x) noexcept { return _mm256_maddubs_epi16(w, x); }
  static Ints add_bytes(Ints sum, Ints w, Ints x) noexcept {
    return add_16(sum, _mm256_maddubs_epi16(w, x));
  }
  static Ints finish_bytes(Ints sum) noexcept {
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
  }
  // Two of them fit where the form of the rows is Pairs.
  static Ints first_pairs(Ints w, Ints x) noexcept {
    return finish_bytes(_mm256_maddubs_epi16(w, x));
  }
  static Ints add_pairs(Ints sum, Ints w, Ints x) noexcept {
    return add_32(sum, first_pairs(w, x));
  }
  static Ints first_words(Ints w, Ints x) noexcept { return _mm256_madd_epi16(w, x); }
  static Ints add_words(Ints sum, Ints w, Ints x) noexcept {
    return add_32(sum, _mm256_madd_epi16(w, x));
  }
};
using WideLanes = Lanes;
constexpr int kWideTogether = 2;  // they share each broadcast of the rows
constexpr int kMostTogether = kWideTogether;

// The order matters.
// clang-format off
#include "compute/cpu/quant_round.inl"
#include "compute/cpu/quant_strip.inl"
#include "compute/cpu/quant_peak.inl"
// clang-format on

bool has_instructions() noexcept { return supported(Isa::Avx2); }

}  // namespace

const QuantKernels& quant_avx2() noexcept {
  static constexpr QuantKernels kTable = {"avx2",   has_instructions, round_row,
                                          multiply, dot_loop,         kDotOpsPerRound};
  return kTable;
}

}  // namespace quern::cpu

#pragma GCC pop_options
#else
namespace quern::cpu {
const QuantKernels& quant_avx2() noexcept { return quant_scalar(); }
}  // namespace quern::cpu
#endif
