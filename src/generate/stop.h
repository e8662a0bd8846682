// When a text is finished, and what of it may be shown before that is known.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/bpe.h"

namespace quern {

// Finds stop strings in a text that arrives in pieces. What could still become a stop string is
// held back, so no prefix of one is ever shown.
class StopStrings {
 public:
  // Throws Misused for an empty stop string.
  explicit StopStrings(std::vector<std::string> strings);

  // Takes more text; returns what may be shown now. Once a stop string is complete, the text before
  // the earliest is returned and everything after is swallowed.
  std::string put(std::string_view text);
  std::string flush();  // the end of the text: what was held back
  bool stopped() const noexcept { return stopped_; }

 private:
  std::vector<std::string> strings_;
  std::string held_;
  bool stopped_ = false;
};

// Rules that end a sequence.
struct StopRules {
  std::vector<TokenId> ids;  // any of these ends it; usually the end-of-text tokens
  std::vector<std::string> strings;
  // Qwen's stop_words_ids: when the ids so far, prompt included, end with one of these, the first
  // of `ids` follows as one more token. What the release does instead of stopping.
  std::vector<std::vector<TokenId>> sequences;
  bool ignore_ids = false;  // go on to the token limit

  bool ends(TokenId id) const noexcept;
  bool forces_end(std::span<const TokenId> history) const noexcept;
};

}  // namespace quern
