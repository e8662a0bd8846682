// Cutting text into pieces before byte pair merging, by the patterns that most models have. Written
// by hand: linear in the text whatever it holds, with no stack to overflow. Other patterns are
// text/pipeline/regex.h's.
#pragma once

#include <cstddef>
#include <string_view>

namespace quern {

enum class SplitRule {
  Qwen2,       // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}
               // | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  Llama3,      // the same with \p{N}{1,3}
  Gpt2,        // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  DigitsGpt2,  // each number by itself, and Gpt2 on what lies between: SmolLM2, StarCoder
};

// The patterns, letter for letter, as tokenizer.json files state them.
extern const std::string_view kQwenPattern, kLlama3Pattern, kGpt2Pattern;

// End of the piece that begins at `begin` < text.size(). `text` is valid UTF-8.
using PieceEnd = size_t (*)(std::string_view text, size_t begin) noexcept;
PieceEnd piece_end_of(SplitRule rule) noexcept;

size_t piece_end(std::string_view text, size_t begin) noexcept;  // by Qwen2's rule

}  // namespace quern
