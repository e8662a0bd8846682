// Tokenizers of folders that have no tokenizer.json: what their files mean is what transformers'
// classes make of them.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "formats/sentencepiece_model.h"
#include "formats/tokenizer_spec.h"
#include "text/tokenizer_config.h"

namespace quern {

// A SentencePiece model. LLaMA's, Gemma's and T5's classes have rules of their own; without a class
// it is read as the SentencePiece library does. Throws Unsupported, by name, for classes that give
// the pieces other ids.
TokenizerSpec spec_of_sentencepiece(const SentencePieceModel& model, const std::string& source,
                                    const TokenizerConfig& config);

// vocab.json and merges.txt: GPT-2's rule, Qwen2's where class or model type say so.
TokenizerSpec spec_of_vocab_and_merges(const fs::path& vocab, const fs::path& merges,
                                       const TokenizerConfig& config);

// vocab.txt: BERT's WordPiece.
TokenizerSpec spec_of_vocab_txt(const fs::path& vocab, const TokenizerConfig& config);

// A byte-level vocabulary with Qwen's rule: tokens as bytes by id, the pairs that merge and what
// they make, and tokens beyond the vocabulary.
TokenizerSpec spec_of_byte_vocabulary(const std::vector<std::string>& tokens,
                                      std::vector<std::array<int32_t, 3>> merges,
                                      std::vector<AddedToken> added);

// The merges that ranks come to, by the tokens' order. Ranks say which tokens there are, not what
// they were merged from: a token's parts are what merging by the lower ranks leaves of its bytes.
std::vector<std::array<int32_t, 3>> merges_of_ranks(const std::vector<std::string>& tokens);

// The steps of a byte-level tokenizer with a splitting pattern before the bytes.
std::vector<PreTokenizerStep> split_then_bytes(std::string_view pattern);

// Marks become spaces, bytes characters, and with `strip` the first space goes.
std::vector<DecoderStep> sentencepiece_decoder(bool strip);

}  // namespace quern
