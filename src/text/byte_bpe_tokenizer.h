// Qwen's first release: a .tiktoken vocabulary, of which all the rest is known. (What has a
// tokenizer.json is pipeline_tokenizer.h's.)
#pragma once

#include "formats/tiktoken.h"
#include "text/piece_cache.h"
#include "text/tokenizer.h"

namespace quern {

class ByteBpeTokenizer : public Tokenizer {
 public:
  // Which special tokens a .tiktoken vocabulary has behind its ranks.
  enum class Release { Later, First };

  // `extra`: tokens of vocabulary expansion, whose ids follow the special ones.
  static std::unique_ptr<ByteBpeTokenizer> from_ranks(const RankedTokens& ranks,
                                                      Release release = Release::Later,
                                                      const RankedTokens* extra = nullptr);
  // Of a vocabulary without extra tokens that is made already.
  static std::unique_ptr<ByteBpeTokenizer> from_ranks(Bpe bpe, Release release = Release::Later);

  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<TokenId>& out) const override;
  bool cuts_at_lines() const noexcept override { return true; }

  // The pieces that the splitting pattern cuts the normalized text into.
  std::vector<std::string> split(std::string_view text) const;

 private:
  explicit ByteBpeTokenizer(Bpe bpe) : bpe_(std::move(bpe)) {}
  void encode_stretch(std::string_view text, std::vector<TokenId>& out) const override;
  void encode_raw(std::string_view bytes, std::vector<TokenId>& out) const override;
  std::string_view normalize(std::string_view text, std::string& storage) const override;
  std::string_view plain_bytes(TokenId id) const noexcept override;

  Bpe bpe_;
  mutable PieceCaches caches_;
};

}  // namespace quern
