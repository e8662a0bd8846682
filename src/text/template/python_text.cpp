#include "text/template/python_text.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>

#include "core/utf8.h"

namespace quern::chat_template {
namespace {

using Points = std::u32string;

utf8proc_category_t category(char32_t point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(point));
}
bool letter(char32_t point) {
  const auto c = category(point);
  return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}
bool upper_case(char32_t point) { return category(point) == UTF8PROC_CATEGORY_LU; }
bool lower_case(char32_t point) {
  // ª, º and modifier letters count as lower case in Python, too.
  return category(point) == UTF8PROC_CATEGORY_LL || utf8proc_islower(static_cast<int>(point)) != 0;
}
bool cased(char32_t point) {
  return upper_case(point) || lower_case(point) || category(point) == UTF8PROC_CATEGORY_LT;
}

Points to_upper(char32_t point) {
  if (point == U'ß') return U"SS";
  if (point == U'ŉ') return U"ʼN";
  if (point >= 0xFB00 && point <= 0xFB06) {  // ligatures of f and s
    constexpr const char32_t* kLigatures[] = {U"FF", U"FI", U"FL", U"FFI", U"FFL", U"ST", U"ST"};
    return kLigatures[point - 0xFB00];
  }
  return {static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(point)))};
}
Points to_lower(char32_t point) {
  if (point == U'İ') return U"i\u0307";
  return {static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(point)))};
}
Points to_title(char32_t point) {
  if (point == U'ß') return U"Ss";
  if (point >= 0xFB00 && point <= 0xFB06) {
    Points all = to_upper(point);
    for (size_t i = 1; i < all.size(); ++i) all[i] = to_lower(all[i])[0];
    return all;
  }
  return {static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(point)))};
}

// `change(point, at)` gives what stands in the place of a code point.
template <class Change>
MarkedText map_points(const MarkedText& text, const Change& change) {
  MarkedText out;
  const std::string_view bytes = text.bytes();
  std::string changed;
  for (size_t run = 0; run < text.runs().size(); ++run) {
    size_t at = text.runs()[run].begin;
    const size_t end = run + 1 < text.runs().size() ? text.runs()[run + 1].begin : bytes.size();
    changed.clear();
    while (at < end) {
      const utf8::Point point = utf8::decode(bytes.substr(at));
      for (const char32_t c : change(point.value, at)) utf8::append(changed, c);
      at += point.length;
    }
    out.append(changed, text.runs()[run].origin);
  }
  return out;
}

// A final sigma is another letter: the one case where lower() looks at the neighbours.
bool final_sigma(std::string_view text, size_t at) {
  const auto ignorable = [](char32_t c) {
    const auto k = category(c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
           k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK || c == '\'' || c == '.' ||
           c == ':' || c == U'·' || c == U'’';
  };
  bool before = false;
  for (size_t i = at; i > 0;) {
    do --i;
    while (i > 0 && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80);
    const char32_t c = utf8::decode(text.substr(i)).value;
    if (ignorable(c)) continue;
    before = cased(c);
    break;
  }
  if (!before) return false;
  for (size_t i = at + 2; i < text.size();) {
    const utf8::Point point = utf8::decode(text.substr(i));
    if (!ignorable(point.value)) return !cased(point.value);
    i += point.length;
  }
  return true;
}

Points lower_at(std::string_view text, char32_t point, size_t at) {
  if (point == U'Σ') return final_sigma(text, at) ? U"ς" : U"σ";
  return to_lower(point);
}

template <class Test>
bool all_points(std::string_view text, const Test& test) {
  if (text.empty()) return false;
  while (!text.empty()) {
    const utf8::Point point = utf8::decode(text);
    if (!test(point.value)) return false;
    text.remove_prefix(point.length);
  }
  return true;
}

template <class Good, class Bad>
bool cased_text(std::string_view text, const Good& good, const Bad& bad) {
  bool any = false;
  while (!text.empty()) {
    const utf8::Point point = utf8::decode(text);
    if (bad(point.value)) return false;
    any = any || good(point.value);
    text.remove_prefix(point.length);
  }
  return any;
}

bool decimal(char32_t point) { return category(point) == UTF8PROC_CATEGORY_ND; }
bool digit(char32_t point) {
  const bool raised = point == 0xB2 || point == 0xB3 || point == 0xB9 || point == 0x2070 ||
                      (point >= 0x2074 && point <= 0x2079) || (point >= 0x2080 && point <= 0x2089);
  const bool circled = (point >= 0x2460 && point <= 0x2468) || (point >= 0x2474 && point <= 0x247C);
  return decimal(point) || raised || circled;
}

}  // namespace

bool is_space(char32_t point) noexcept {
  switch (point) {
    case 0x09:
    case 0x0A:
    case 0x0B:
    case 0x0C:
    case 0x0D:
    case 0x1C:
    case 0x1D:
    case 0x1E:
    case 0x1F:
    case 0x20:
    case 0x85:
    case 0xA0:
    case 0x1680:
    case 0x2028:
    case 0x2029:
    case 0x202F:
    case 0x205F:
    case 0x3000:
      return true;
    default:
      return point >= 0x2000 && point <= 0x200A;
  }
}

size_t length(std::string_view text) noexcept {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

size_t offset_of(std::string_view text, size_t point) noexcept {
  size_t at = 0;
  for (; at < text.size(); ++at) {
    if ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) continue;
    if (point-- == 0) return at;
  }
  return at;
}

size_t find(std::string_view text, std::string_view part, size_t from) noexcept {
  if (from > text.size()) return text.npos;
  const void* at = ::memmem(text.data() + from, text.size() - from, part.data(), part.size());
  if (at == nullptr) return text.npos;
  return static_cast<size_t>(static_cast<const char*>(at) - text.data());
}

Range strip(std::string_view text, Side side, const std::string_view* chars) {
  Points set;
  if (chars != nullptr) {
    for (std::string_view rest = *chars; !rest.empty();) {
      const utf8::Point point = utf8::decode(rest);
      set += point.value;
      rest.remove_prefix(point.length);
    }
    std::sort(set.begin(), set.end());
  }
  const auto drop = [&](char32_t point) {
    return chars != nullptr ? std::binary_search(set.begin(), set.end(), point) : is_space(point);
  };
  Range out{0, text.size()};
  while (side != Side::Right && out.begin < out.end) {
    const utf8::Point point = utf8::decode(text.substr(out.begin));
    if (!drop(point.value)) break;
    out.begin += point.length;
  }
  while (side != Side::Left && out.begin < out.end) {
    size_t last = out.end - 1;
    while (last > out.begin && (static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) --last;
    if (!drop(utf8::decode(text.substr(last)).value)) break;
    out.end = last;
  }
  return out;
}

MarkedText upper(const MarkedText& text) {
  return map_points(text, [](char32_t point, size_t) { return to_upper(point); });
}

MarkedText lower(const MarkedText& text) {
  return map_points(text,
                    [&](char32_t point, size_t at) { return lower_at(text.bytes(), point, at); });
}

MarkedText swapcase(const MarkedText& text) {
  return map_points(text, [&](char32_t point, size_t at) {
    return upper_case(point) ? lower_at(text.bytes(), point, at) : to_upper(point);
  });
}

MarkedText capitalize(const MarkedText& text) {
  return map_points(text, [&](char32_t point, size_t at) {
    return at == 0 ? to_title(point) : lower_at(text.bytes(), point, at);
  });
}

MarkedText title(const MarkedText& text) {
  bool within = false;
  return map_points(text, [&](char32_t point, size_t at) {
    const bool first = !within;
    within = cased(point);
    return first ? to_title(point) : lower_at(text.bytes(), point, at);
  });
}

MarkedText jinja_title(const MarkedText& text) {
  // Words begin at the text's start and behind white space and - ( { [ <.
  bool begins = true;
  size_t rest = 0;  // of a word, which is lowered without a look at its first letter
  return map_points(text, [&](char32_t point, size_t at) {
    const bool first = begins;
    begins = is_space(point) || point == '-' || point == '(' || point == '{' || point == '[' ||
             point == '<';
    if (first) {
      std::string letter;
      utf8::append(letter, point);
      rest = at + letter.size();
      return to_upper(point);
    }
    return lower_at(text.bytes().substr(rest), point, at - rest);
  });
}

MarkedText reverse(const MarkedText& text) {
  MarkedText out;
  for (size_t end = text.size(); end > 0;) {
    size_t begin = end - 1;
    while (begin > 0 && (static_cast<unsigned char>(text.bytes()[begin]) & 0xC0) == 0x80) --begin;
    out.append(text, begin, end);
    end = begin;
  }
  return out;
}

MarkedText replace(const MarkedText& text, std::string_view from, const MarkedText& to,
                   int64_t count) {
  MarkedText out;
  const std::string_view bytes = text.bytes();
  size_t copied = 0;
  if (from.empty()) {  // before each code point and at the end
    for (size_t at = 0; count != 0 && at <= bytes.size(); --count) {
      out.append(text, copied, at);
      out.append(to);
      copied = at;
      at += at < bytes.size() ? utf8::decode(bytes.substr(at)).length : 1;
    }
  } else {
    for (size_t at = 0; count != 0 && (at = find(bytes, from, at)) != bytes.npos; --count) {
      out.append(text, copied, at);
      out.append(to);
      copied = at += from.size();
    }
  }
  out.append(text, copied, bytes.size());
  return out;
}

bool is_upper(std::string_view text) {
  return cased_text(text, upper_case, [](char32_t c) { return cased(c) && !upper_case(c); });
}
bool is_lower(std::string_view text) {
  return cased_text(text, lower_case, [](char32_t c) { return cased(c) && !lower_case(c); });
}
bool is_alpha(std::string_view text) { return all_points(text, letter); }
bool is_decimal(std::string_view text) { return all_points(text, decimal); }
bool is_digit(std::string_view text) { return all_points(text, digit); }
bool is_alnum(std::string_view text) {
  return all_points(text, [](char32_t c) {
    return letter(c) || digit(c) || category(c) == UTF8PROC_CATEGORY_NL ||
           category(c) == UTF8PROC_CATEGORY_NO;
  });
}
bool is_all_space(std::string_view text) { return all_points(text, is_space); }

}  // namespace quern::chat_template
