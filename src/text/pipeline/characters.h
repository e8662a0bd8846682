// What the steps of a tokenizer ask about characters.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "core/utf8.h"
#include "text/unicode.h"

namespace quern::characters {

inline bool is_space(char32_t point) noexcept {  // Unicode's White_Space
  const unicode::Class kind = unicode::class_of(point);
  return kind == unicode::Class::Space || kind == unicode::Class::LineBreak;
}
inline bool is_number(char32_t point) noexcept {
  return unicode::class_of(point) == unicode::Class::Number;
}
bool is_punctuation(char32_t point) noexcept;  // Unicode's, and ASCII's signs
bool is_mark(char32_t point) noexcept;
bool is_nonspacing_mark(char32_t point) noexcept;
bool is_control(char32_t point) noexcept;  // control, format, private use
bool is_word(char32_t point) noexcept;     // \w as Rust's regex crate has it
bool is_chinese(char32_t point) noexcept;  // the blocks that BERT sets apart

void append_lower(std::string& out, char32_t point);

// Calls take(point, begin, end) for every character of valid UTF-8.
template <class Take>
void each(std::string_view text, Take&& take) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    if (lead < 0x80) {
      take(char32_t{lead}, i, i + 1);
      ++i;
      continue;
    }
    const utf8::Point point = utf8::decode(text.substr(i));
    take(point.value, i, i + point.length);
    i += point.length;
  }
}

// The character that ends before `end`, which is not 0.
char32_t before(std::string_view text, size_t end, size_t& begin) noexcept;

}  // namespace quern::characters
