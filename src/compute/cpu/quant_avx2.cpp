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

// Registers of eight outputs, as quant_strip.inl takes them.
struct Lanes {
  using Floats = __m256;
  using Ints = __m256i;
  static constexpr int kLanes = 8;
  // Registers of a tile of one row, of others, and of others with two sums.
  static constexpr int64_t kFewRows = 1;
  static constexpr int kRegistersOfFew = 4, kRegisters = 2, kRegistersOfTwoSums = 2;
  static constexpr int64_t kSeveralBlocks = 16;
  // Rows of levels that share the unpacked weights of so many registers.
  static constexpr int tile_rows(int registers) noexcept {
    return registers == kRegistersOfFew ? 1 : 4;
  }

  static Floats load(const float* p) noexcept { return _mm256_load_ps(p); }
  static void store(float* p, Floats v) noexcept { _mm256_store_ps(p, v); }
  static Floats all(float value) noexcept { return _mm256_set1_ps(value); }
  static Floats mul(Floats a, Floats b) noexcept { return _mm256_mul_ps(a, b); }
  static Floats add(Floats a, Floats b) noexcept { return _mm256_add_ps(a, b); }
  static Floats fma(Floats a, Floats b, Floats c) noexcept { return _mm256_fmadd_ps(a, b, c); }
  static Floats to_floats(Ints v) noexcept { return _mm256_cvtepi32_ps(v); }
  static Ints add_ints(Ints a, Ints b) noexcept { return _mm256_add_epi32(a, b); }

  // Scales of a strip's outputs.
  static Floats halves(const std::byte* p) noexcept { return _mm256_cvtph_ps(load_16(p)); }
  static Floats words(const std::byte* p) noexcept {
    return to_floats(_mm256_cvtepi16_epi32(load_16(p)));
  }
  static Floats unsigned_bytes(const std::byte* p) noexcept {
    return to_floats(_mm256_cvtepu8_epi32(load_8(p)));
  }
  static Floats signed_bytes(const std::byte* p) noexcept {
    return to_floats(_mm256_cvtepi8_epi32(load_8(p)));
  }

  // Levels: four bytes, or four times two nibbles, an output.
  static Ints bytes(const std::byte* p) noexcept {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static Ints word(const std::byte* p) noexcept {
    int32_t four;
    std::memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
  }
  static Ints low_nibbles(Ints v) noexcept { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
  static Ints high_nibbles(Ints v) noexcept { return low_nibbles(_mm256_srli_epi16(v, 4)); }
  static Ints flip_signs(Ints v) noexcept { return _mm256_xor_si256(v, _mm256_set1_epi8(-128)); }
  static Ints sizes(Ints v) noexcept { return _mm256_abs_epi8(v); }
  static Ints with_signs(Ints v, Ints signs) noexcept { return _mm256_sign_epi8(v, signs); }
  static Ints low_bytes(Ints v) noexcept { return high_bytes(_mm256_slli_epi16(v, 8)); }
  static Ints high_bytes(Ints v) noexcept { return _mm256_srai_epi16(v, 8); }

  // Products of unsigned bytes are added up in 16 bits: 16 of 15 · 128 at most fit.
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

 private:
  static __m128i load_16(const std::byte* p) noexcept {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static __m128i load_8(const std::byte* p) noexcept {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  }
};

// The order matters.
// clang-format off
#include "compute/cpu/quant_round.inl"
#include "compute/cpu/quant_strip.inl"
#include "compute/cpu/quant_peak.inl"
// clang-format on

bool has_instructions() noexcept { return supported(Isa::Avx2); }

}  // namespace

const QuantKernels& quant_avx2() noexcept {
  static constexpr QuantKernels kTable = {"avx2",   has_instructions, round_row,      multiply,
                                          dot_loop, pair_loop,        kDotOpsPerRound};
  return kTable;
}

}  // namespace quern::cpu

#pragma GCC pop_options
#else
namespace quern::cpu {
const QuantKernels& quant_avx2() noexcept { return quant_scalar(); }
}  // namespace quern::cpu
#endif
