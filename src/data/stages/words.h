// Words and sentences of a text as the published filters count them: datatrove's rules were set on
// the words of spaCy's blank English pipeline, where punctuation marks are words of their own. Han,
// kana and Thai characters stand for words where a filter asks for them (see han_words).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace quern {

// Appends the words of `text` (valid UTF-8), in order; views into it.
void split_words(std::string_view text, std::vector<std::string_view>& out);

// Punctuation that ends a sentence in some script: full stops, question and exclamation marks.
bool ends_sentence(char32_t c) noexcept;

// Sentences of one line: runs of words that end with sentence punctuation.
int64_t count_sentences(std::string_view line);

// Words for comparing texts: letters and digits lower-cased, everything else left out; Han, kana,
// Hangul and Thai characters singly. Appends hashes of the words, and to `places` where each stands.
struct WordPlace {
  uint32_t begin, end;  // bytes of the text
};
void shingle_words(std::string_view text, std::vector<uint64_t>& out,
                   std::vector<WordPlace>* places = nullptr);

// Characters of `text`: its code points.
int64_t count_characters(std::string_view text) noexcept;

}  // namespace quern
