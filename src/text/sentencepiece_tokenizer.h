// SentencePiece models (LLaMA's tokenizer.model), through the library.
#pragma once

#include "core/file.h"
#include "text/tokenizer.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace quern {

class SentencePieceTokenizer : public Tokenizer {
 public:
  // `add_bos`: put the model's <s> before a raw prompt.
  SentencePieceTokenizer(const fs::path& model, bool add_bos);
  // From the bytes of a model; `source` names them in errors.
  SentencePieceTokenizer(std::string_view content, const std::string& source, bool add_bos);
  ~SentencePieceTokenizer() override;

  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<TokenId>& out) const override;

 private:
  void encode_stretch(std::string_view text, std::vector<TokenId>& out) const override;
  std::string_view normalize(std::string_view text, std::string& storage) const override;
  std::string_view plain_bytes(TokenId id) const noexcept override;

  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  std::vector<std::string> owned_bytes_;
};

}  // namespace quern
