// Vocabulary expansion: words that are to become tokens of a .tiktoken vocabulary, by merges that
// come after all of its own: text that holds none of the words, nor of the parts that they were
// joined from, is encoded as before.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tiktoken.h"

namespace quern {

struct VocabExpansion {
  RankedTokens tokens;                // the new ones, whose ids begin behind the special tokens
  std::vector<std::string> warnings;  // a line for each word that cannot be added, and why
  size_t words = 0;                   // that were added
};

// `list`: a word, a tab and a frequency a line; a frequency that is no number, or missing, is 1.
// Words are stripped of white space and put in NFC; one that is repeated counts as often as all of
// its lines say. Of the pairs of neighbouring tokens in the words the one with the highest
// frequency is joined until each word is one token; of equals the one of fewest characters, then
// the first in the order of bytes. `first_id` is that of the first new token.
VocabExpansion expand_vocabulary(const RankedTokens& ranks, std::string_view list,
                                 int64_t first_id);

}  // namespace quern
