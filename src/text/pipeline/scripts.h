// Cutting a text where its script changes, as SentencePiece and Hugging Face's UnicodeScripts do.
#pragma once

#include <cstddef>
#include <functional>
#include <string_view>

namespace quern {

// Japanese kana count as Han; a space, and what has no script of its own, joins either side.
void split_scripts(std::string_view text, const std::function<void(size_t, size_t)>& take);

}  // namespace quern
