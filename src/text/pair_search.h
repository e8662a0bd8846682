// PairRanks::find in two steps, for those who have something else to do between them, and without a
// branch on whether a pair merges, which nobody could predict.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "core/opaque.h"
#include "text/bpe.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace quern {

class PairSearch {
 public:
  // Reads the filter, and asks for the line where the pair would be. `is_pair` false: for none.
  PairSearch(const PairRanks& pairs, TokenId left, TokenId right, bool is_pair = true) noexcept
      : key_(PairRanks::key_of(left, right)) {
    const uint64_t hash = PairRanks::hash_of(key_);
    const auto there = reinterpret_cast<uintptr_t>(pairs.line_of(hash));
    const auto empty = reinterpret_cast<uintptr_t>(kEmptyLine);
    const uint64_t maybe = opaque(-static_cast<uint64_t>(is_pair & pairs.may_hold(hash)));
    line_ = reinterpret_cast<const uint64_t*>(empty ^ ((there ^ empty) & maybe));
    __builtin_prefetch(line_);
  }
  PairSearch() noexcept = default;  // finds nothing

  // The rank, or PairRanks::kNone.
  [[gnu::always_inline]] int32_t rank(const PairRanks& pairs) const noexcept {
    static_assert(PairRanks::kNone == -1);
    int32_t rank = in_line(line_, key_);
    for (const uint64_t* line = line_; rank == kFull;) {
      line = pairs.line_after(line);
      rank = in_line(line, key_);
    }
    return rank;
  }

#if defined(__x86_64__)
  // The same on a machine with AVX2.
  [[gnu::target("avx2,bmi,bmi2,lzcnt")]] int32_t rank_avx2(const PairRanks& pairs) const noexcept {
    const __m256i key = _mm256_set1_epi64x(static_cast<int64_t>(key_));
    for (const uint64_t* line = line_;; line = pairs.line_after(line)) {
      const __m256i words = _mm256_load_si256(reinterpret_cast<const __m256i*>(line));
      const auto here = static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(
          _mm256_cmpeq_epi64(_mm256_srli_epi64(words, PairRanks::kRankBits), key))));
      const auto empty = static_cast<unsigned>(_mm256_movemask_pd(
          _mm256_castsi256_pd(_mm256_cmpeq_epi64(words, _mm256_set1_epi64x(-1)))));
      if ((here | empty) == 0) [[unlikely]]
        continue;
      const auto place = static_cast<size_t>(std::countr_zero(here | 0x10u));
      const auto rank = static_cast<int32_t>(line[place % kLine] & PairRanks::kRankMask);
      return rank | opaque(-static_cast<int32_t>(here == 0));
    }
  }
#endif

 private:
  static constexpr size_t kLine = PairRanks::kLine;
  static_assert(kLine == 4);
  static constexpr int32_t kFull = -2;
  // Searched where the filter has said that a pair does not merge: what is found is the same.
  alignas(64) static constexpr uint64_t kEmptyLine[kLine] = {PairRanks::kEmpty, PairRanks::kEmpty,
                                                             PairRanks::kEmpty, PairRanks::kEmpty};

  // The rank where the pair is in the line, kNone where it is nowhere, kFull where the line is full
  // of others.
  [[gnu::always_inline]] static int32_t in_line(const uint64_t* line, uint64_t key) noexcept {
#if defined(__x86_64__)
    // Four bits for each word, of which the first tells that the others are set as well.
    const __m128i low = _mm_load_si128(reinterpret_cast<const __m128i*>(line));
    const __m128i high = _mm_load_si128(reinterpret_cast<const __m128i*>(line + 2));
    const unsigned here = all_equal(_mm_srli_epi64(low, PairRanks::kRankBits),
                                    _mm_srli_epi64(high, PairRanks::kRankBits),
                                    _mm_set1_epi64x(static_cast<int64_t>(key)));
    const unsigned empty = all_equal(low, high, _mm_set1_epi32(-1));
    if ((here | empty) == 0) [[unlikely]]
      return kFull;
    const auto place = static_cast<size_t>(std::countr_zero(here | 0x10000u)) / 4;
    const auto rank = static_cast<int32_t>(line[place % kLine] & PairRanks::kRankMask);
    return rank | opaque(-static_cast<int32_t>(here == 0));
#else
    bool empty = false;
    for (size_t i = 0; i < kLine; ++i) {
      if (line[i] >> PairRanks::kRankBits == key) {
        return static_cast<int32_t>(line[i] & PairRanks::kRankMask);
      }
      empty |= line[i] == PairRanks::kEmpty;
    }
    return empty ? PairRanks::kNone : kFull;
#endif
  }

#if defined(__x86_64__)
  [[gnu::always_inline]] static unsigned all_equal(__m128i low, __m128i high,
                                                   __m128i wanted) noexcept {
    const int bits = _mm_movemask_epi8(
        _mm_packs_epi32(_mm_cmpeq_epi32(low, wanted), _mm_cmpeq_epi32(high, wanted)));
    return static_cast<unsigned>(bits & bits >> 2) & 0x1111u;
  }
#endif

  uint64_t key_ = 0;
  const uint64_t* line_ = kEmptyLine;
};

}  // namespace quern
