// Passages that a corpus holds more than once, found exactly (the aim of Lee et al. 2022,
// "Deduplicating Training Data Makes Language Models Better", by hashes in place of a suffix array):
// every run of `words` words that stands in an earlier place, too.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/pipeline/stage.h"

namespace quern {

struct PassageOptions {
  int64_t words = 50;  // of the shortest passage, as shingle_words counts them
  std::string within;  // field whose values part the corpus; empty: one corpus
};

// Runs are told apart by 96 bits of two rolling hashes. What grows with the corpus, 20 bytes a word,
// lies in files under `scratch`, of which one of 64 is in memory at a time.
class RepeatedPassages {
 public:
  // Reads all inputs of the stage. Throws NoResources where the disk is full.
  RepeatedPassages(const PassageOptions& options, const StageOptions& stage,
                   const fs::path& scratch);
  ~RepeatedPassages();

  struct Cut {
    std::string text;      // without the repeated passages; of each the first place keeps it
    int64_t words = 0;     // that were cut
    bool nothing = false;  // no word is left
  };
  // The text of the document at `place`. May be called by several threads.
  Cut without_repeats(std::string_view text, const Place& place) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace quern
