// Products of packed weights compiled for AVX-512's integer dot products; see quant_kernels.h.
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

// Registers of sixteen outputs, as quant_strip.inl takes them.
struct Lanes {
  using Floats = __m512;
  using Ints = __m512i;
  static constexpr int kLanes = 16;
  // Registers of a tile of one or two rows, of others, and of others with two sums.
  static constexpr int64_t kFewRows = 2;
  static constexpr int kRegistersOfFew = 2, kRegisters = 2, kRegistersOfTwoSums = 1;
  static constexpr int64_t kSeveralBlocks = 4;
  // Rows of levels that share the unpacked weights of so many registers. Loads are what a tile of
  // one register waits for: each row's four bytes are loaded for it alone.
  static constexpr int tile_rows(int registers) noexcept { return registers == 1 ? 8 : 6; }

  static Floats load(const float* p) noexcept { return _mm512_load_ps(p); }
  static void store(float* p, Floats v) noexcept { _mm512_store_ps(p, v); }
  static Floats all(float value) noexcept { return _mm512_set1_ps(value); }
  static Floats mul(Floats a, Floats b) noexcept { return _mm512_mul_ps(a, b); }
  static Floats add(Floats a, Floats b) noexcept { return _mm512_add_ps(a, b); }
  static Floats fma(Floats a, Floats b, Floats c) noexcept { return _mm512_fmadd_ps(a, b, c); }
  static Floats to_floats(Ints v) noexcept { return _mm512_cvtepi32_ps(v); }
  static Ints add_ints(Ints a, Ints b) noexcept { return _mm512_add_epi32(a, b); }

  // Scales of outputs.
  static Floats halves(const std::byte* p) noexcept { return _mm512_cvtph_ps(load_16(p)); }
  static Floats words(const std::byte* p) noexcept {
    return to_floats(_mm512_cvtepi16_epi32(load_16(p)));
  }
  static Floats unsigned_bytes(const std::byte* p) noexcept {
    return to_floats(_mm512_cvtepu8_epi32(load_8(p)));
  }
  static Floats signed_bytes(const std::byte* p) noexcept {
    return to_floats(_mm512_cvtepi8_epi32(load_8(p)));
  }

  // Levels: four bytes, or four times two nibbles, an output.
  static Ints bytes(const std::byte* p) noexcept { return _mm512_loadu_si512(p); }
  static Ints word(const std::byte* p) noexcept {
    int32_t four;
    std::memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
  }
  static Ints low_nibbles(Ints v) noexcept { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
  static Ints high_nibbles(Ints v) noexcept { return low_nibbles(_mm512_srli_epi16(v, 4)); }
  static Ints flip_signs(Ints v) noexcept { return _mm512_xor_si512(v, _mm512_set1_epi8(-128)); }
  static Ints sizes(Ints v) noexcept { return _mm512_abs_epi8(v); }
  static Ints with_signs(Ints v, Ints signs) noexcept {  // of no sign too: it counts nothing
    return _mm512_mask_sub_epi8(v, _mm512_movepi8_mask(signs), _mm512_setzero_si512(), v);
  }
  static Ints low_bytes(Ints v) noexcept { return high_bytes(_mm512_slli_epi16(v, 8)); }
  static Ints high_bytes(Ints v) noexcept { return _mm512_srai_epi16(v, 8); }

  static Ints first_bytes(Ints w, Ints x) noexcept {
    return add_bytes(_mm512_setzero_si512(), w, x);
  }
  static Ints add_bytes(Ints sum, Ints w, Ints x) noexcept {
    return _mm512_dpbusd_epi32(sum, w, x);
  }
  static Ints finish_bytes(Ints sum) noexcept { return sum; }
  static Ints first_pairs(Ints w, Ints x) noexcept { return first_bytes(w, x); }
  static Ints add_pairs(Ints sum, Ints w, Ints x) noexcept { return add_bytes(sum, w, x); }
  static Ints first_words(Ints w, Ints x) noexcept {
    return add_words(_mm512_setzero_si512(), w, x);
  }
  static Ints add_words(Ints sum, Ints w, Ints x) noexcept {
    return _mm512_dpwssd_epi32(sum, w, x);
  }

 private:
  static __m256i load_16(const std::byte* p) noexcept {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static __m128i load_8(const std::byte* p) noexcept {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
};

// The order matters.
// clang-format off
#include "compute/cpu/quant_round.inl"
#include "compute/cpu/quant_strip.inl"
#include "compute/cpu/quant_peak.inl"
// clang-format on

bool has_instructions() noexcept {
  return supported(Isa::Avx512) && __builtin_cpu_supports("avx512vnni") != 0;
}

}  // namespace

const QuantKernels& quant_vnni() noexcept {
  static constexpr QuantKernels kTable = {"vnni",   has_instructions, round_row,      multiply,
                                          dot_loop, pair_loop,        kDotOpsPerRound};
  return kTable;
}

}  // namespace quern::cpu

#pragma GCC pop_options
#else
namespace quern::cpu {
const QuantKernels& quant_vnni() noexcept { return quant_scalar(); }
}  // namespace quern::cpu
#endif
