#include "data/stages/word_list.h"

#include <utf8proc.h>

#include <algorithm>

#include "core/error.h"
#include "core/python_text.h"
#include "core/utf8.h"

namespace quern {
namespace {

std::u32string lower_points(std::string_view text) {
  std::u32string points = python::points(text);
  for (char32_t& point : points) {
    point = static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(point)));
  }
  return points;
}

bool is_letter_or_digit(char32_t point) noexcept {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(point))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
      return true;
    default:
      return false;
  }
}

bool writes_no_spaces(char32_t point) noexcept {
  return (point >= 0x0E00 && point < 0x0E80) || (point >= 0x3040 && point < 0x3100) ||
         (point >= 0x3400 && point < 0xA000) || (point >= 0xF900 && point < 0xFB00) ||
         (point >= 0x20000 && point < 0x32000);
}

// Whether two neighbours belong to one word.
bool joined(char32_t a, char32_t b) noexcept {
  return is_letter_or_digit(a) && is_letter_or_digit(b) && !writes_no_spaces(a) &&
         !writes_no_spaces(b);
}

}  // namespace

WordList::WordList(std::string_view lines, const std::string& source) {
  if (!utf8::is_valid(lines)) throw_bad_input(source + ": is no UTF-8");
  for (const std::string_view line : python::split_at(lines, "\n")) {
    const std::u32string entry = lower_points(python::strip(line));
    if (entry.empty() || entry[0] == U'#') continue;
    by_first_[entry[0]].push_back(entry);
  }
  if (by_first_.empty()) throw_bad_input(source + ": lists no word");
  // The longest that fits is found.
  for (auto& [first, entries] : by_first_) {
    std::ranges::sort(entries, std::greater(), &std::u32string::size);
  }
}

int64_t WordList::count(std::string_view text) const {
  const std::u32string points = lower_points(text);
  int64_t found = 0;
  for (size_t i = 0; i < points.size();) {
    size_t length = 0;
    const auto entries = by_first_.find(points[i]);
    if (entries != by_first_.end() && (i == 0 || !joined(points[i - 1], points[i]))) {
      for (const std::u32string& entry : entries->second) {
        const size_t end = i + entry.size();
        if (end > points.size() || points.compare(i, entry.size(), entry) != 0) continue;
        if (end < points.size() && joined(points[end - 1], points[end])) continue;
        length = entry.size();
        break;
      }
    }
    found += length > 0;
    i += std::max<size_t>(length, 1);
  }
  return found;
}

}  // namespace quern
