// Text as Python's str and re see it: the reference's rules of extraction and of metrics are
// written in them, down to what counts as white space.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace quern::python {

bool is_space(char32_t point) noexcept;  // str.isspace()
bool is_alnum(char32_t point) noexcept;  // str.isalnum()
bool is_digit(char32_t point) noexcept;  // a decimal digit of any script: \d

std::string_view strip(std::string_view text) noexcept;
std::string_view lstrip(std::string_view text) noexcept;
std::string_view rstrip(std::string_view text) noexcept;
std::vector<std::string_view> split(std::string_view text);  // at runs of white space
// str.splitlines(keepends=True)
std::vector<std::string_view> split_lines(std::string_view text);
std::vector<std::string_view> split_at(std::string_view text, std::string_view separator);

// str.replace(): an empty `from` stands before each character and at the end.
std::string replace(std::string_view text, std::string_view from, std::string_view to);

// str.rstrip(c): `last` cut from the end as often as it stands there.
std::string_view rstrip_all(std::string_view text, std::string_view last) noexcept;

// The part before the first `mark`, or all of it.
std::string_view before(std::string_view text, std::string_view mark) noexcept;

void append(std::string& text, char32_t point);

// Code points; what is no UTF-8 becomes U+FFFD.
std::u32string points(std::string_view text);
size_t length(std::string_view text) noexcept;  // in code points

}  // namespace quern::python
