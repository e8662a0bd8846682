// Python's view of text: code points, white space, case.
#pragma once

#include <string>
#include <string_view>

#include "text/template/marked_text.h"

namespace quern::chat_template {

bool is_space(char32_t point) noexcept;  // as str.isspace

// Length in code points.
size_t length(std::string_view text) noexcept;
// Byte offset of a code point; the size for one past the end.
size_t offset_of(std::string_view text, size_t point) noexcept;

// As string_view::find, in time of the sizes' sum.
size_t find(std::string_view text, std::string_view part, size_t from = 0) noexcept;

// Offsets of what is left without white space (or, with `chars`, without these code points) at the
// left and the right.
struct Range {
  size_t begin, end;
};
enum class Side { Left, Right, Both };
Range strip(std::string_view text, Side side, const std::string_view* chars = nullptr);

// Each byte keeps its origin.
MarkedText upper(const MarkedText& text);
MarkedText lower(const MarkedText& text);
MarkedText swapcase(const MarkedText& text);
MarkedText capitalize(const MarkedText& text);
MarkedText title(const MarkedText& text);        // str.title
MarkedText reverse(const MarkedText& text);      // by code points
MarkedText jinja_title(const MarkedText& text);  // the filter: words by - ( { [ <
MarkedText replace(const MarkedText& text, std::string_view from, const MarkedText& to,
                   int64_t count);  // -1: all

bool is_upper(std::string_view text);
bool is_lower(std::string_view text);
// Letters, decimals, digits, numbers as str.isalpha and its kin; all false for an empty text.
bool is_alpha(std::string_view text);
bool is_decimal(std::string_view text);
bool is_digit(std::string_view text);
bool is_alnum(std::string_view text);
bool is_all_space(std::string_view text);

}  // namespace quern::chat_template
