#include "agent/python_text.h"

#include "core/utf8.h"

namespace quern {
namespace {

bool is_space(char32_t c) noexcept {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

}  // namespace

std::u32string python_characters(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const utf8::Point next = utf8::decode(text);
    out += next.value;
    text.remove_prefix(next.length);
  }
  return out;
}

std::string_view python_rstrip(std::string_view text) noexcept {
  while (!text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    const utf8::Point last = utf8::decode(text.substr(begin));
    if (!last.valid || begin + last.length != text.size() || !is_space(last.value)) break;
    text = text.substr(0, begin);
  }
  return text;
}

std::string_view python_strip(std::string_view text) noexcept {
  while (!text.empty()) {
    const utf8::Point first = utf8::decode(text);
    if (!first.valid || !is_space(first.value)) break;
    text.remove_prefix(first.length);
  }
  return python_rstrip(text);
}

std::string_view trim_turn(std::string_view text) noexcept {
  const size_t begin = text.find_first_not_of('\n');
  return begin == std::string_view::npos ? std::string_view() : python_rstrip(text.substr(begin));
}

}  // namespace quern
