// Cutting text into pieces before byte pair merging, as Qwen's pattern does:
//   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*
//   |\s*[\r\n]+|\s+(?!\S)|\s+
// Written by hand: linear in the text whatever it holds, with no stack to overflow.
#pragma once

#include <cstddef>
#include <string_view>

namespace quern {

// The pattern above, letter for letter, as tokenizer.json files state it.
extern const std::string_view kQwenPattern;

// End of the piece that begins at `begin` < text.size(). `text` is valid UTF-8.
size_t piece_end(std::string_view text, size_t begin) noexcept;

}  // namespace quern
