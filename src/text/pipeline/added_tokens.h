// Finding added tokens in a text before the rest of it is cut and merged.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizer_spec.h"
#include "text/bpe.h"
#include "text/pipeline/byte_trie.h"

namespace quern {

class AddedTokens {
 public:
  AddedTokens() = default;
  // `contents[i]`: what is looked for where tokens[i] is meant. Both have to outlive this.
  AddedTokens(const std::vector<AddedToken>& tokens, std::vector<std::string> contents,
              bool longest_first);

  bool empty() const noexcept { return trie_.empty(); }

  // A stretch of the text: of token `token`, or of none where that is null.
  struct Part {
    const AddedToken* token;
    size_t begin, end;
  };
  // Cuts a text. Of what is found `allowed` says whether it counts; what does not stays text, and
  // nothing else is looked for inside of it.
  void cut(std::string_view text, const std::function<bool(const AddedToken&)>& allowed,
           std::vector<Part>& parts) const;

 private:
  struct Match {
    size_t begin, end;
    int32_t token;
  };
  void find_leftmost(std::string_view text, std::vector<Match>& matches) const;
  void find_longest(std::string_view text, std::vector<Match>& matches) const;

  const std::vector<AddedToken>* tokens_ = nullptr;
  std::vector<std::string> contents_;
  ByteTrie trie_;
  bool longest_first_ = false;
  std::string first_bytes_;
};

}  // namespace quern
