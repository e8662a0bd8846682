// PairRanks::find in three steps, for those who have something else to do between them, and without
// a branch on whether a pair merges, which nobody could predict.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "text/bpe.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace quern {

class PairSearch {
 public:
  // Asks for the filter's word.
  PairSearch(const PairRanks& pairs, TokenId left, TokenId right) noexcept
      : key_(PairRanks::key_of(left, right)), hash_(PairRanks::hash_of(key_)) {
    pairs.prefetch_filter(hash_);
  }
  // A search that finds nothing.
  PairSearch() noexcept : line_(kEmptyLine) {}

  // Reads the filter, and asks for the line where the pair would be. `is_pair` false: for none.
  void look_where(const PairRanks& pairs, bool is_pair = true) noexcept {
    const bool maybe = is_pair & pairs.may_hold(hash_);
    line_ = maybe ? pairs.line_of(hash_) : kEmptyLine;
    __builtin_prefetch(line_);
  }

  // The rank, or PairRanks::kNone.
  [[gnu::always_inline]] int32_t rank(const PairRanks& pairs) const noexcept {
    int32_t rank = in_line(line_, key_);
    for (const uint64_t* line = line_; rank == kFull;) {
      line = pairs.line_after(line);
      rank = in_line(line, key_);
    }
    return rank;
  }

 private:
  static constexpr size_t kLine = PairRanks::kLine;
  static_assert(kLine == 4);
  static constexpr int32_t kFull = -2;
  static_assert(PairRanks::kNone == -1);
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
    return here != 0 ? rank : PairRanks::kNone;
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

  uint64_t key_ = 0, hash_ = 0;
  const uint64_t* line_ = kEmptyLine;
};

}  // namespace quern
