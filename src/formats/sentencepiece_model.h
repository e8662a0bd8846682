// A SentencePiece model's file: a message of protocol buffers, of which the fields that say how text
// becomes ids are read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

struct SentencePieceModel {
  enum class Type : uint8_t { Normal = 1, Unknown, Control, UserDefined, Unused, Byte };
  struct Piece {
    std::string text;
    float score = 0;
    Type type = Type::Normal;
  };
  enum class Algorithm { Unigram = 1, Bpe, Word, Char };

  std::vector<Piece> pieces;
  Algorithm algorithm = Algorithm::Unigram;
  bool byte_fallback = false;
  bool space_as_suffix = false;
  int64_t unknown = 0, bos = 1, eos = 2, pad = -1;
  std::string charsmap;
  bool add_prefix = true, remove_extra_spaces = true, escape_spaces = true;
};

// Throws BadInput naming `source` and the offset for anything that is not such a message.
SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& source);

}  // namespace quern
