// Byte-level BPE tokenizers: Qwen's .tiktoken vocabulary and the tokenizer.json of later releases.
#pragma once

#include "formats/tiktoken.h"
#include "formats/tokenizer_json.h"
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
  // Throws BadInput where the file asks for a splitting pattern that is not known.
  static std::unique_ptr<ByteBpeTokenizer> from_json(const TokenizerJson& json,
                                                     const std::string& source);

  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<TokenId>& out) const override;

  // The pieces that the splitting pattern cuts the normalized text into.
  std::vector<std::string> split(std::string_view text) const;

 private:
  ByteBpeTokenizer(Bpe bpe, bool nfc) : bpe_(std::move(bpe)), nfc_(nfc) {}
  void encode_stretch(std::string_view text, std::vector<TokenId>& out) const override;
  void encode_raw(std::string_view bytes, std::vector<TokenId>& out) const override;
  std::string_view normalize(std::string_view text, std::string& storage) const override;
  std::string_view plain_bytes(TokenId id) const noexcept override;

  Bpe bpe_;
  bool nfc_;
  mutable PieceCaches caches_;
};

}  // namespace quern
