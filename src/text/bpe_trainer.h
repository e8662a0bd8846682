// Learning a byte-level BPE vocabulary (Sennrich, Haddow, Birch, "Neural machine translation of
// rare words with subword units", 2016): text is put in NFC and cut into words by Qwen's pattern;
// again and again the pair of tokens that stands most often side by side becomes a new token.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/bpe.h"
#include "text/word_counts.h"

namespace quern {

struct BpeTrainerOptions {
  int64_t vocab = 32000;      // tokens to learn, the 256 bytes included, special ones not
  int64_t min_frequency = 0;  // a pair that stands side by side less often is not merged
};

struct TrainedBpe {
  // By id: the bytes in the order of their printable stand-ins (0x21-0x7E, 0xA1-0xAC, 0xAE-0xFF,
  // then the rest), then what was merged.
  std::vector<std::string> tokens;
  // In order. Several may join to one token, so there can be more merges than new tokens.
  std::vector<Bpe::Merge> merges;
};

class BpeTrainer {
 public:
  // Counts the words of a text in valid UTF-8. Memory grows with the number of different words.
  void add(std::string_view text);

  // Takes over what another trainer has counted: threads count a trainer each.
  void add(const BpeTrainer& other) { counts_.add(other.counts_); }

  size_t words() const noexcept { return counts_.size(); }

  // The pair with the highest count is merged; of equals the one with the smaller left id, then the
  // smaller right id. Ends early when no pair is left. `progress` is told the tokens there are and
  // may throw to stop.
  TrainedBpe train(const BpeTrainerOptions& options,
                   const std::function<void(int64_t tokens)>& progress = {}) const;

 private:
  WordCounts counts_;
};

}  // namespace quern
