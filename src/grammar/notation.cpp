#include "grammar/notation.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/utf8.h"

namespace quern {

NotationReader::NotationReader(std::string_view text, const char* what) : text_(text), what_(what) {
  if (text.size() > kMaxGrammarBytes) {
    throw_bad_input(
        fmt::format("{} has {} bytes, at most {} are taken", what, text.size(), kMaxGrammarBytes));
  }
  if (!utf8::is_valid(text)) throw_bad_input(fmt::format("{} is no UTF-8", what));
}

void NotationReader::fail(const std::string& problem) const {
  throw_bad_input(fmt::format("{}, byte {}: {}", what_, at_, problem));
}

bool NotationReader::take(std::string_view wanted) {
  if (!text_.substr(std::min(at_, text_.size())).starts_with(wanted)) return false;
  at_ += wanted.size();
  return true;
}

uint32_t NotationReader::point() {
  if (done()) fail("ends too early");
  const utf8::Point p = utf8::decode(text_.substr(at_));
  at_ += p.length;
  return p.value;
}

uint32_t NotationReader::hex(int digits) {
  uint32_t value = 0;
  for (int i = 0; i < digits; ++i) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    const char c = peek();
    const size_t digit = kDigits.find(c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c);
    if (done() || digit == kDigits.npos) fail("expected a hexadecimal digit");
    value = 16 * value + static_cast<uint32_t>(digit);
    ++at_;
  }
  if (value > kLastPoint) fail("that is no character");
  return value;
}

int64_t NotationReader::count() {
  int64_t value = -1;
  for (; peek() >= '0' && peek() <= '9'; ++at_) {
    value = std::min<int64_t>(10 * std::max<int64_t>(value, 0) + (peek() - '0'), 1'000'000'000);
  }
  return value;
}

bool NotationReader::repetition(int64_t& least, int64_t& most) {
  least = 1, most = 1;
  if (take("*")) {
    least = 0, most = -1;
  } else if (take("+")) {
    most = -1;
  } else if (take("?")) {
    least = 0;
  } else if (take("{")) {
    least = count();
    if (least < 0) fail("expected a number");
    most = take(",") ? count() : least;
    if (!take("}")) fail("expected }");
    if (most >= 0 && most < least) fail("the repetition's bounds are the wrong way round");
  } else {
    return false;
  }
  return true;
}

CodePoints NotationReader::escape(bool widest) {
  const uint32_t c = point();
  switch (c) {
    case 'n':
      return single('\n');
    case 't':
      return single('\t');
    case 'r':
      return single('\r');
    case 'x':
      return single(hex(2));
    case 'u': {
      const uint32_t high = hex(4);
      if (high < 0xD800 || high > 0xDFFF) return single(high);
      // Two halves of a pair are one character.
      if (high > 0xDBFF || !take("\\u")) fail("that is half a character");
      const uint32_t low = hex(4);
      if (low < 0xDC00 || low > 0xDFFF) fail("that is half a character");
      return single(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00));
    }
    default:
      return own_escape(c, widest);
  }
}

CodePoints NotationReader::plain_escape(uint32_t c, std::string_view characters) const {
  if (c >= 0x80 || characters.find(static_cast<char>(c)) == characters.npos) {
    fail("that escape is not known");
  }
  return single(c);
}

CodePoints NotationReader::class_item(bool widest) {
  if (take("\\")) return escape(widest);
  return single(point());
}

CodePoints NotationReader::character_class() {
  const bool negated = take("^");
  CodePoints ranges;
  for (bool first = true; first || peek() != ']'; first = false) {
    if (done()) fail("the class has no ]");
    if (first && peek() == ']') fail("the class is empty");
    if (text_.substr(at_).starts_with("[:")) fail("classes by name are not known; write \\d, \\w");
    CodePoints low = class_item(negated);
    const bool range = peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']';
    if (range) {
      ++at_;
      const CodePoints high = class_item(negated);
      const bool single = low.size() == 1 && low[0].first == low[0].second && high.size() == 1 &&
                          high[0].first == high[0].second;
      if (!single || high[0].first < low[0].first) fail("the class has a bad range");
      low[0].second = high[0].second;
    }
    ranges.insert(ranges.end(), low.begin(), low.end());
  }
  ++at_;
  return negated ? Grammar::complement(ranges) : ranges;
}

}  // namespace quern
