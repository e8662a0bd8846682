// The rules by which GGUF files cut text, by the name that tokenizer.ggml.pre gives them.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "formats/tokenizer_spec.h"

namespace quern {

struct GgufPreRule {
  // Expressions one after the other, each on the pieces that those before it left; a match is a
  // piece, and so is what lies between matches. As the models' own tokenizers write them where these
  // and llama.cpp's table differ.
  std::span<const std::string_view> patterns;
  bool ignore_merges = false;       // a piece that is a token is that token
  bool bos = false;                 // put before a text unless the file says otherwise
  bool sep = false;                 // a separator behind it
  bool nfc = false;                 // text is normalized first
  bool raw = false;                 // no byte letters: the text itself is merged
  bool marks = false;               // spaces are marked as SentencePiece does
  bool between_is_dropped = false;  // what lies between matches is no piece
  bool falcon = false;              // Falcon's steps, of which two come behind the byte letters
};

struct NamedGgufPreRule {
  std::string_view name;
  GgufPreRule rule;
};

// All of them. Of several with one rule the first is the one to write.
std::span<const NamedGgufPreRule> gguf_pre_rules();

// Nothing for a name that is not known. `default` is the rule of files that name none.
std::optional<GgufPreRule> gguf_pre_rule(std::string_view name);

// The steps that a rule comes to; `raw`: no byte letters.
std::vector<NormalizerStep> normalizers_of(const GgufPreRule& rule);
std::vector<PreTokenizerStep> pre_tokenizers_of(const GgufPreRule& rule, bool raw);

}  // namespace quern
