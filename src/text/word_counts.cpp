#include "text/word_counts.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>

namespace quern {
namespace {

constexpr uint64_t kUpperHalf = ~uint64_t{0} << 32;

uint64_t hash_of(std::string_view word) noexcept { return XXH3_64bits(word.data(), word.size()); }

}  // namespace

void WordCounts::add(std::string_view word, int64_t times) {
  if (2 * words_.size() >= slots_.size()) grow();
  const uint64_t hash = hash_of(word);
  size_t slot = hash & (slots_.size() - 1);
  for (; slots_[slot] != 0; slot = (slot + 1) & (slots_.size() - 1)) {
    if (((slots_[slot] ^ hash) & kUpperHalf) != 0) continue;
    const size_t number = static_cast<uint32_t>(slots_[slot]) - 1u;
    if (this->word(number) != word) continue;
    words_[number].times += times;
    return;
  }
  words_.push_back({bytes_.size(), word.size(), times});
  bytes_ += word;
  slots_[slot] = (hash & kUpperHalf) | words_.size();
}

void WordCounts::add(const WordCounts& other) {
  for (size_t i = 0; i < other.size(); ++i) add(other.word(i), other.times(i));
}

void WordCounts::grow() {
  const size_t size = std::max<size_t>(1 << 12, 2 * slots_.size());
  slots_.assign(size, 0);
  for (size_t i = 0; i < words_.size(); ++i) {
    const uint64_t hash = hash_of(word(i));
    size_t slot = hash & (size - 1);
    while (slots_[slot] != 0) slot = (slot + 1) & (size - 1);
    slots_[slot] = (hash & kUpperHalf) | (i + 1);
  }
}

}  // namespace quern
