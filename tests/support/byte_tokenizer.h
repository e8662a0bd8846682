// A tokenizer whose ids 0 to 255 are the bytes, with Qwen's special tokens after them.
#pragma once

#include <memory>

#include "text/byte_bpe_tokenizer.h"

namespace quern::test {

inline std::unique_ptr<Tokenizer> byte_tokenizer() {
  RankedTokens ranks;
  for (int byte = 0; byte < 256; ++byte) ranks.tokens.emplace_back(1, static_cast<char>(byte));
  return ByteBpeTokenizer::from_ranks(ranks);
}

}  // namespace quern::test
