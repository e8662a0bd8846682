#include "evaluate/python_text.h"

#include <utf8proc.h>

#include "core/utf8.h"

namespace quern::python {
namespace {

// The code point before `end`, as its first byte's offset.
size_t previous(std::string_view text, size_t end) noexcept {
  size_t begin = end - 1;
  while (begin > 0 && end - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) {
    --begin;
  }
  const utf8::Point point = utf8::decode(text.substr(begin, end - begin));
  return point.valid && begin + point.length == end ? begin : end - 1;
}

}  // namespace

bool is_space(char32_t point) noexcept {
  if (point < 0x80) return (point >= 9 && point <= 13) || (point >= 0x1C && point <= 0x20);
  return point == 0x85 || point == 0xA0 || point == 0x1680 ||
         (point >= 0x2000 && point <= 0x200A) || point == 0x2028 || point == 0x2029 ||
         point == 0x202F || point == 0x205F || point == 0x3000;
}

bool is_alnum(char32_t point) noexcept {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(point))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return true;
    default:
      return false;
  }
}

bool is_digit(char32_t point) noexcept {
  if (point < 0x80) return point >= '0' && point <= '9';
  return utf8proc_category(static_cast<utf8proc_int32_t>(point)) == UTF8PROC_CATEGORY_ND;
}

std::string_view lstrip(std::string_view text) noexcept {
  while (!text.empty()) {
    const utf8::Point point = utf8::decode(text);
    if (!is_space(point.value)) break;
    text.remove_prefix(point.length);
  }
  return text;
}

std::string_view rstrip(std::string_view text) noexcept {
  while (!text.empty()) {
    const size_t begin = previous(text, text.size());
    if (!is_space(utf8::decode(text.substr(begin)).value)) break;
    text = text.substr(0, begin);
  }
  return text;
}

std::string_view strip(std::string_view text) noexcept { return rstrip(lstrip(text)); }

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  size_t begin = 0, at = 0;
  while (at < text.size()) {
    const utf8::Point point = utf8::decode(text.substr(at));
    if (is_space(point.value)) {
      if (at > begin) parts.push_back(text.substr(begin, at - begin));
      begin = at + point.length;
    }
    at += point.length;
  }
  if (text.size() > begin) parts.push_back(text.substr(begin));
  return parts;
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const utf8::Point point = utf8::decode(text.substr(at));
    at += point.length;
    if (point.value == U'\r' && at < text.size() && text[at] == '\n') ++at;
    const bool ends = (point.value >= 0x0A && point.value <= 0x0D) ||
                      (point.value >= 0x1C && point.value <= 0x1E) || point.value == 0x85 ||
                      point.value == 0x2028 || point.value == 0x2029;
    if (!ends) continue;
    lines.push_back(text.substr(begin, at - begin));
    begin = at;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::vector<std::string_view> split_at(std::string_view text, std::string_view separator) {
  std::vector<std::string_view> parts;
  for (size_t end; (end = text.find(separator)) != text.npos;) {
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end + separator.size());
  }
  parts.push_back(text);
  return parts;
}

std::string replace(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  if (from.empty()) {
    for (size_t at = 0; at < text.size();) {
      const size_t length = utf8::decode(text.substr(at)).length;
      out.append(to).append(text.substr(at, length));
      at += length;
    }
    return out.append(to);
  }
  for (size_t found; (found = text.find(from)) != text.npos;) {
    out.append(text.substr(0, found)).append(to);
    text.remove_prefix(found + from.size());
  }
  return out.append(text);
}

std::string_view rstrip_all(std::string_view text, std::string_view last) noexcept {
  while (text.ends_with(last)) text.remove_suffix(last.size());
  return text;
}

std::string_view before(std::string_view text, std::string_view mark) noexcept {
  return text.substr(0, text.find(mark));
}

void append(std::string& text, char32_t point) { utf8::append(text, point); }

std::u32string points(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const utf8::Point point = utf8::decode(text);
    out.push_back(point.value);
    text.remove_prefix(point.length);
  }
  return out;
}

size_t length(std::string_view text) noexcept {
  size_t count = 0;
  for (; !text.empty(); ++count) text.remove_prefix(utf8::decode(text).length);
  return count;
}

}  // namespace quern::python
