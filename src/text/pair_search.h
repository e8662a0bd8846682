// PairRanks::find in two steps, for those who have something else to do between them, and without a
// branch on whether a pair merges, which nobody could predict.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/opaque.h"
#include "text/bpe.h"

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

  // False where the filter has said that there is no such pair.
  bool may_find() const noexcept { return line_ != kEmptyLine; }

  // The rank, or PairRanks::kNone.
  [[gnu::always_inline]] int32_t rank(const PairRanks& pairs) const noexcept {
    static_assert(PairRanks::kNone == -1);
    for (const uint64_t* line = line_;; line = pairs.line_after(line)) {
      const uint64_t found = in_line(line, key_);
      if (found == 0) [[unlikely]]
        continue;
      return static_cast<int32_t>(found & PairRanks::kRankMask) - 1;
    }
  }

 private:
  static constexpr size_t kLine = PairRanks::kLine;
  static_assert(kLine == 4);
  using Line = uint64_t __attribute__((vector_size(kLine * sizeof(uint64_t))));
  // Searched where the filter has said that a pair does not merge: what is found is the same.
  alignas(64) static constexpr uint64_t kEmptyLine[kLine] = {PairRanks::kEmpty, PairRanks::kEmpty,
                                                             PairRanks::kEmpty, PairRanks::kEmpty};

  // The rank and 1 where the pair is in the line, a bit above them where the line has room; 0 where
  // it is full of others.
  [[gnu::always_inline]] static uint64_t in_line(const uint64_t* line, uint64_t key) noexcept {
    constexpr uint64_t kRoom = PairRanks::kRankMask + 1;
    Line words;
    std::memcpy(&words, line, sizeof words);
    const Line here = reinterpret_cast<Line>((words >> PairRanks::kRankBits) == key);
    const Line empty = reinterpret_cast<Line>(words == PairRanks::kEmpty);
    Line found = (here & ((words & PairRanks::kRankMask) + 1)) | (empty & kRoom);
    found |= __builtin_shufflevector(found, found, 2, 3, 0, 1);
    return found[0] | found[1];
  }

  uint64_t key_ = 0;
  const uint64_t* line_ = kEmptyLine;
};

}  // namespace quern
