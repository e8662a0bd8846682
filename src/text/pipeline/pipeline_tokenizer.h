// A tokenizer made of the steps that a TokenizerSpec names: added tokens, normalizer, pre-tokenizer,
// model, what is put around a text, decoder. Ids and texts are those of Hugging Face's tokenizers.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "formats/tokenizer_spec.h"
#include "text/piece_cache.h"
#include "text/pipeline/added_tokens.h"
#include "text/pipeline/decoder.h"
#include "text/pipeline/normalizer.h"
#include "text/pipeline/piece_model.h"
#include "text/pipeline/pre_tokenizer.h"
#include "text/tokenizer.h"

namespace quern {

class PipelineTokenizer : public Tokenizer {
 public:
  // Throws BadInput and Unsupported naming spec.source and what in it is wrong or too large.
  explicit PipelineTokenizer(TokenizerSpec spec);

  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<TokenId>& out) const override;
  std::string decode(std::span<const TokenId> ids, BadBytes bad = BadBytes::Replace,
                     bool skip_special = false) const override;
  bool concatenates() const noexcept override {
    return spec_.shown_is_given || decoder_.concatenates();
  }
  bool cuts_at_lines() const noexcept override { return cuts_at_lines_; }

  const TokenizerSpec& spec() const noexcept { return spec_; }

 private:
  void encode_allowing(std::string_view text, const SpecialPolicy& policy,
                       std::vector<TokenId>& out) const override;
  void encode_stretch(std::string_view text, std::vector<TokenId>& out) const override;
  void encode_raw(std::string_view bytes, std::vector<TokenId>& out) const override;
  std::string_view normalize(std::string_view text, std::string& storage) const override;
  std::string_view plain_bytes(TokenId id) const noexcept override;

  void make_byte_bpe();
  void find_added();
  void encode_cut(std::string_view text, bool first, std::vector<TokenId>& out) const;
  void encode_bytes_of(std::string_view piece, std::vector<TokenId>& out) const;
  bool lacks_bytes(std::string_view text) const noexcept;
  std::string token_text(TokenId id) const;  // as the decoder gets it
  void make_shown() const;

  TokenizerSpec spec_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  Decoder decoder_;
  std::optional<Bpe> bpe_;             // of byte-level vocabularies, by bytes
  std::unique_ptr<PieceModel> model_;  // of others
  AddedTokens raw_added_, normalized_added_;
  std::vector<std::string> added_texts_;        // of spec_.added, as they are shown
  std::vector<const AddedToken*> added_of_id_;  // by id - lowest_added_
  TokenId lowest_added_ = 0;
  std::array<bool, 256> missing_{};
  bool misses_bytes_ = false, cuts_at_lines_ = false;
  mutable PieceCaches caches_;
  // What each id adds to a text, for vocabularies that are not byte-level; made on first use.
  mutable std::once_flag shown_once_;
  mutable std::vector<std::string> shown_;
};

}  // namespace quern
