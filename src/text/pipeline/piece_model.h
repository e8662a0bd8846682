// What a tokenizer's model makes of one piece: BPE over characters, Unigram, WordPiece, WordLevel.
// (BPE over bytes is text/bpe.h.)
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "formats/tokenizer_spec.h"
#include "text/bpe.h"

namespace quern {

class PieceModel {
 public:
  virtual ~PieceModel() = default;
  // Appends the ids of a piece of valid UTF-8, which is not empty. Throws BadInput where something
  // in it has no token and nothing stands for the unknown.
  virtual void encode(std::string_view piece, std::vector<TokenId>& out) const = 0;
};

// `model` has to outlive the result. Throws Unsupported for a vocabulary that is too large.
std::unique_ptr<PieceModel> make_piece_model(const TokenModel& model, const std::string& source);

// The byte that a token of the form <0x0A> stands for; -1 for another token.
int byte_of_name(std::string_view token) noexcept;

// The merges that a list of pieces and scores comes to, as Hugging Face's converter makes them: the
// best score first, of equals the longer left side.
void merges_of_scores(TokenModel& model);

}  // namespace quern
