// How often each word stands in a text. Memory grows with the number of different words only.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/huge_pages.h"

namespace quern {

class WordCounts {
 public:
  void add(std::string_view word, int64_t times = 1);
  void add(const WordCounts& other);

  size_t size() const noexcept { return words_.size(); }  // different words
  // In the order in which they came.
  std::string_view word(size_t number) const noexcept {
    return std::string_view(bytes_).substr(words_[number].begin, words_[number].size);
  }
  int64_t times(size_t number) const noexcept { return words_[number].times; }

 private:
  struct Word {
    size_t begin, size;
    int64_t times;
  };
  void grow();

  std::string bytes_;  // of all words
  std::vector<Word> words_;
  // Open addressing: half a hash, and the number + 1.
  std::vector<uint64_t, HugePages<uint64_t>> slots_;
};

}  // namespace quern
