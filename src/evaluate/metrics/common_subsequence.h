// The length of the longest common subsequence of two sequences of symbols, 64 positions at a time
// (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004).
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace quern {

// One sequence prepared for being compared with many.
template <class Symbol>
class CommonSubsequence {
 public:
  explicit CommonSubsequence(std::span<const Symbol> pattern)
      : words_((pattern.size() + 63) / 64), state_(words_) {
    for (size_t i = 0; i < pattern.size(); ++i) {
      auto& mask = masks_[pattern[i]];
      mask.resize(words_);
      mask[i / 64] |= uint64_t{1} << (i % 64);
    }
  }

  size_t length(std::span<const Symbol> text) {
    std::fill(state_.begin(), state_.end(), ~uint64_t{0});
    for (const Symbol& symbol : text) {
      const auto found = masks_.find(symbol);
      if (found == masks_.end()) continue;
      uint64_t carry = 0;
      for (size_t w = 0; w < words_; ++w) {
        const uint64_t state = state_[w], matched = state & found->second[w];
        uint64_t sum;
        const bool over = __builtin_add_overflow(state, matched, &sum);
        const bool over_carry = __builtin_add_overflow(sum, carry, &sum);
        carry = over || over_carry;
        state_[w] = sum | (state - matched);
      }
    }
    // Bits beyond the pattern match nothing and stay set.
    size_t count = 0;
    for (const uint64_t word : state_) count += static_cast<size_t>(std::popcount(~word));
    return count;
  }

 private:
  size_t words_;
  std::unordered_map<Symbol, std::vector<uint64_t>> masks_;
  std::vector<uint64_t> state_;
};

}  // namespace quern
