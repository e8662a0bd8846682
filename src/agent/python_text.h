// Text as Python's str sees it: prompts and benchmarks of the release were written in Python, and
// its strip() and slices count.
#pragma once

#include <string>
#include <string_view>

namespace quern {

// The code points of UTF-8; ill-formed bytes become U+FFFD.
std::u32string python_characters(std::string_view text);

// str.strip(), str.rstrip(): white space by Unicode's bidirectional classes and category Zs.
std::string_view python_strip(std::string_view text) noexcept;
std::string_view python_rstrip(std::string_view text) noexcept;

// str.lstrip("\n").rstrip()
std::string_view trim_turn(std::string_view text) noexcept;

}  // namespace quern
