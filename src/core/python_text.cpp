#include "core/python_text.h"

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

std::vector<std::string_view> split_at(std::string_view text, std::string_view separator) {
  std::vector<std::string_view> parts;
  for (size_t end; (end = text.find(separator)) != text.npos;) {
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end + separator.size());
  }
  parts.push_back(text);
  return parts;
}

void split_lines(std::string_view text, LineEnds ends, std::vector<std::string_view>& lines) {
  lines.clear();
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const auto c = static_cast<unsigned char>(text[at]);
    size_t length = 0;  // of the line's end, where one is here
    if (c == '\r') {
      length = text.substr(at).starts_with("\r\n") ? 2 : 1;
    } else if ((c >= 0x0A && c <= 0x0C) || (c >= 0x1C && c <= 0x1E)) {
      length = 1;
    } else if (c == 0xC2 && text.substr(at).starts_with("\u0085")) {
      length = 2;
    } else if (c == 0xE2 &&
               (text.substr(at).starts_with("\u2028") || text.substr(at).starts_with("\u2029"))) {
      length = 3;
    }
    if (length == 0) {
      ++at;
      continue;
    }
    const size_t end = at;
    at += length;
    lines.push_back(text.substr(begin, (ends == LineEnds::Keep ? at : end) - begin));
    begin = at;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
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

char32_t last_point(std::string_view text) noexcept {
  return text.empty() ? 0 : utf8::decode(text.substr(previous(text, text.size()))).value;
}

}  // namespace quern::python
