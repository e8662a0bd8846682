// Text as Python's str sees it, down to what counts as white space: the release's prompts, the
// benchmarks' rules and the published text filters were written in Python.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace quern::python {

// str.isspace()
constexpr bool is_space(char32_t point) noexcept {
  if (point < 0x80) return (point >= 0x09 && point <= 0x0D) || (point >= 0x1C && point <= 0x20);
  return point == 0x85 || point == 0xA0 || point == 0x1680 ||
         (point >= 0x2000 && point <= 0x200A) || point == 0x2028 || point == 0x2029 ||
         point == 0x202F || point == 0x205F || point == 0x3000;
}

std::string_view strip(std::string_view text) noexcept;
std::string_view lstrip(std::string_view text) noexcept;
std::string_view rstrip(std::string_view text) noexcept;
std::vector<std::string_view> split(std::string_view text);  // at runs of white space
std::vector<std::string_view> split_at(std::string_view text, std::string_view separator);

// str.splitlines(), into `lines`, which is emptied first.
enum class LineEnds { Cut, Keep };
void split_lines(std::string_view text, LineEnds ends, std::vector<std::string_view>& lines);

// str.replace(): an empty `from` stands before each character and at the end.
std::string replace(std::string_view text, std::string_view from, std::string_view to);

// `text` without any `last` at its end.
std::string_view rstrip_all(std::string_view text, std::string_view last) noexcept;

// The part before the first `mark`, or all of it.
std::string_view before(std::string_view text, std::string_view mark) noexcept;

// Code points; each ill-formed part becomes U+FFFD.
std::u32string points(std::string_view text);
size_t length(std::string_view text) noexcept;  // in code points
// The last code point; 0 for an empty text.
char32_t last_point(std::string_view text) noexcept;

}  // namespace quern::python
