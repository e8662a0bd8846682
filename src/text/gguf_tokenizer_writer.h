// A tokenizer as GGUF metadata: byte-level BPE ("gpt2"), and SentencePiece's BPE ("llama").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf_writer.h"
#include "formats/tokenizer_spec.h"

namespace quern {

// The metadata of a tokenizer, found before anything is written.
class GgufTokenizer {
 public:
  // Throws Unsupported for a kind of tokenizer that these files have no model for, by name.
  explicit GgufTokenizer(TokenizerSpec spec);

  // What GGUF has no place for, in words: a splitting rule without a name in
  // tokenizer.ggml.pre, flags of added tokens, other tokens around a text than BOS and EOS.
  const std::vector<std::string>& lost() const noexcept { return lost_; }

  // Two added tokens that share characters, so that texts which run them together are read in
  // another order; in words, or empty. Such texts are no one's, so that it is not a loss.
  const std::string& overlap() const noexcept { return overlap_; }

  // `vocab`: rows of the embedding; ids without a token get one that text never makes. `bos` and
  // `ends` are the model's; what the tokenizer puts around a text goes before them.
  void write(GgufWriter& out, int64_t vocab, std::optional<int64_t> bos,
             const std::vector<int64_t>& ends) const;
  const TokenizerSpec& spec() const noexcept { return spec_; }

 private:
  void find_byte_level_rule();
  void take_sentencepiece();
  void find_lost_of_added();
  int64_t added_id(std::string_view content) const;  // or -1
  std::vector<int32_t> types(int64_t vocab) const;

  TokenizerSpec spec_;
  bool sentencepiece_ = false, space_prefix_ = false;
  std::string pre_, overlap_;
  std::vector<double> scores_;
  std::vector<std::string> lost_;
};

}  // namespace quern
