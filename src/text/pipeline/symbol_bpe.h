// Byte pair encoding that begins with characters: LLaMA's, Gemma's, CLIP's.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/pipeline/piece_model.h"

namespace quern {

class SymbolBpe : public PieceModel {
 public:
  SymbolBpe(const TokenModel& model, const std::string& source);
  void encode(std::string_view piece, std::vector<TokenId>& out) const override;

 private:
  void add_merges();
  void add_splits();  // of every token, by score
  void symbols_of(std::string_view piece, std::vector<TokenId>& out) const;
  void merge(std::vector<TokenId>& ids) const;
  void merge_few(std::vector<TokenId>& ids) const;
  void merge_many(std::vector<TokenId>& ids) const;
  TokenId symbol(std::string_view text, char32_t point) const;  // -1: no token
  bool bytes_of(std::string_view text, std::vector<TokenId>& out) const;
  void encode_word(std::string_view piece, std::vector<TokenId>& out) const;

  const TokenModel& model_;
  std::string source_;
  std::unordered_map<std::string_view, TokenId> ids_;
  std::vector<TokenId> characters_;  // by code point, where these are tokens or parts of tokens
  std::array<TokenId, 256> bytes_{};
  // Characters that are parts of tokens and no tokens, where merging goes by score: their ids follow
  // the tokens'.
  std::vector<std::string> parts_;
  PairRanks pairs_;                // the number of a merge
  std::vector<TokenId> joined_;    // by this number
  std::vector<int32_t> priority_;  // by this number, the lowest first; empty: the number itself
  // No merge has a mark of a space behind something else, so that a piece may be cut before each.
  bool cuts_at_marks_ = false;
};

}  // namespace quern
