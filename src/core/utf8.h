// UTF-8, one code point at a time, by the Unicode standard's table 3-7.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace quern::utf8 {

struct Point {
  char32_t value = 0xFFFD;  // U+FFFD when not valid
  size_t length = 1;        // bytes taken: for bad input the maximal ill-formed part, at least 1
  bool valid = false;
};

// The code point that `text` begins with. `text` must not be empty.
Point decode(std::string_view text) noexcept;

void append(std::string& out, char32_t point);

bool is_valid(std::string_view text) noexcept;

// Offset of the first byte that is not valid UTF-8, or npos.
size_t first_invalid(std::string_view text) noexcept;

}  // namespace quern::utf8
