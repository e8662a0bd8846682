#include "agent/json5.h"

#include <utf8proc.h>

#include <charconv>
#include <cstdlib>
#include <limits>
#include <unordered_map>

#include "core/utf8.h"
#include "text/unicode.h"

namespace quern {
namespace {

bool is_space(char32_t c) noexcept {
  return c == ' ' || (c >= 0x09 && c <= 0x0D) || c == 0xA0 || c == 0xFEFF || c == 0x2028 ||
         c == 0x2029 ||
         (c > 0x7F && utf8proc_category(static_cast<utf8proc_int32_t>(c)) == UTF8PROC_CATEGORY_ZS);
}

bool starts_identifier(char32_t c) noexcept {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_NL:
      return true;
    default:
      return c == '$' || c == '_';
  }
}

bool continues_identifier(char32_t c) noexcept {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return starts_identifier(c) || c == 0x200C || c == 0x200D;
  }
}

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

int hex_value(char c) noexcept {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Hexadecimal digits as decimal ones, by schoolbook multiplication: numbers of any size stay exact.
std::string decimal_of_hex(std::string_view hex) {
  constexpr size_t kMost = 4096;  // quadratic beyond any number that is meant
  if (hex.size() > kMost) return {};
  std::vector<uint32_t> limbs = {0};  // base 1e9, least first
  for (const char c : hex) {
    uint64_t carry = static_cast<uint64_t>(hex_value(c));
    for (uint32_t& limb : limbs) {
      carry += uint64_t{limb} * 16;
      limb = static_cast<uint32_t>(carry % 1'000'000'000);
      carry /= 1'000'000'000;
    }
    if (carry > 0) limbs.push_back(static_cast<uint32_t>(carry));
  }
  std::string out = std::to_string(limbs.back());
  for (size_t i = limbs.size() - 1; i-- > 0;) {
    const std::string part = std::to_string(limbs[i]);
    out += std::string(9 - part.size(), '0') + part;
  }
  return out;
}

class Reader {
 public:
  Reader(std::string_view text, const Json5Rules& rules) : text_(text), rules_(rules) {}

  bool value(OrderedJson& out, int depth) {
    if (!skip() || at_end()) return false;
    const char c = text_[at_];
    if (c == '{') return object(out, depth + 1);
    if (c == '[') return array(out, depth + 1);
    if (const auto quote = opening_quote()) {
      out.kind = OrderedJson::Kind::String;
      return string(out.text, *quote);
    }
    if (is_digit(c) || c == '-' || c == '+' || c == '.' || c == 'N' || c == 'I') return number(out);
    if (word("true")) return put(out, OrderedJson::of_bool(true));
    if (word("false")) return put(out, OrderedJson::of_bool(false));
    if (word("null")) return put(out, {});
    return false;
  }

  // White space and comments; false in a comment that is not closed.
  bool skip() {
    while (true) {
      at_ = skip_json5_space(text_, at_);
      if (take("//")) {
        while (!at_end() && !at_line_end()) at_ += point().length;
      } else if (take("/*")) {
        const size_t end = text_.find("*/", at_);
        if (end == std::string_view::npos) return false;
        at_ = end + 2;
      } else {
        return true;
      }
    }
  }

  size_t at() const { return at_; }
  bool at_end() const { return at_ >= text_.size(); }
  bool repaired() const { return repaired_; }

 private:
  static bool put(OrderedJson& out, OrderedJson value) {
    out = std::move(value);
    return true;
  }
  utf8::Point point() const { return utf8::decode(text_.substr(at_)); }
  bool at_line_end() const {
    if (text_[at_] == '\n' || text_[at_] == '\r') return true;
    const char32_t c = point().value;
    return c == 0x2028 || c == 0x2029;
  }
  bool take(std::string_view wanted) {
    if (!text_.substr(at_).starts_with(wanted)) return false;
    at_ += wanted.size();
    return true;
  }
  // A mark between values, or the full-width one that stands for it.
  bool take_mark(char mark, std::string_view wide) {
    if (take({&mark, 1})) return true;
    if (!rules_.repairs || !take(wide)) return false;
    return repaired_ = true;
  }
  bool word(std::string_view wanted) {
    if (!text_.substr(at_).starts_with(wanted)) return false;
    const size_t end = at_ + wanted.size();
    if (end < text_.size() && continues_identifier(utf8::decode(text_.substr(end)).value)) {
      return false;
    }
    at_ = end;
    return true;
  }
  // At the end of the text, where that may close what is open.
  bool closes_here() {
    if (!rules_.close_at_end || !at_end()) return false;
    return repaired_ = true;
  }

  // Skips to the next item of an object or array, over the comma before it, or past its end.
  enum class Next { Item, End, Bad };
  Next next_item(std::string_view close, bool first) {
    if (!skip()) return Next::Bad;
    if (take(close) || closes_here()) return Next::End;
    if (first) return Next::Item;
    if (!take_mark(',', "，") || !skip()) return Next::Bad;
    return take(close) || closes_here() ? Next::End : Next::Item;
  }

  bool object(OrderedJson& out, int depth) {
    if (depth > rules_.max_depth) return false;
    out.kind = OrderedJson::Kind::Object;
    std::unordered_map<std::string, size_t> places;
    ++at_;
    for (bool first = true;; first = false) {
      if (const Next next = next_item("}", first); next != Next::Item) return next == Next::End;
      std::string key;
      if (!member_name(key) || !skip() || !take_mark(':', "：")) return false;
      const auto [place, fresh] = places.emplace(key, out.members.size());
      if (fresh) out.members.emplace_back(std::move(key), OrderedJson{});
      OrderedJson item;
      if (!value(item, depth)) return false;
      out.members[place->second].second = std::move(item);
    }
  }

  bool array(OrderedJson& out, int depth) {
    if (depth > rules_.max_depth) return false;
    out.kind = OrderedJson::Kind::Array;
    ++at_;
    for (bool first = true;; first = false) {
      if (const Next next = next_item("]", first); next != Next::Item) return next == Next::End;
      if (!value(out.items.emplace_back(), depth)) return false;
    }
  }

  bool member_name(std::string& out) {
    if (at_end()) return false;
    if (const auto quote = opening_quote()) return string(out, *quote);
    bool first = true;
    while (!at_end()) {
      char32_t c = point().value;
      size_t length = point().length;
      if (c == '\\') {
        if (!text_.substr(at_).starts_with("\\u") || !hex(at_ + 2, 4, c)) return false;
        length = 6;
        if (!(first ? starts_identifier(c) : continues_identifier(c))) return false;
      }
      if (!(first ? starts_identifier(c) : continues_identifier(c))) break;
      utf8::append(out, c);
      at_ += length;
      first = false;
    }
    return !first;
  }

  // The quote that closes the string whose opening one is here; it is then passed.
  std::optional<std::string_view> opening_quote() {
    if (take("\"")) return "\"";
    if (take("'")) return "'";
    if (rules_.repairs && take("“")) {
      repaired_ = true;
      return "”";
    }
    return std::nullopt;
  }

  bool string(std::string& out, std::string_view quote) {
    while (!at_end()) {
      if (take(quote)) return true;
      const char c = text_[at_];
      if (c == '\\') {
        if (!escape(out)) return false;
      } else if (c == '\n' || c == '\r') {
        if (!rules_.repairs) return false;
        repaired_ = true;
        out += c;
        ++at_;
      } else {
        out += c;
        ++at_;
      }
    }
    return closes_here();
  }

  bool hex(size_t from, size_t digits, char32_t& out) const {
    if (from + digits > text_.size()) return false;
    out = 0;
    for (size_t i = from; i < from + digits; ++i) {
      if (hex_value(text_[i]) < 0) return false;
      out = out * 16 + static_cast<char32_t>(hex_value(text_[i]));
    }
    return true;
  }

  bool escape(std::string& out) {
    ++at_;
    if (at_end()) return false;
    const char c = text_[at_];
    char32_t code = 0;
    switch (c) {
      case 'b':
        out += '\b';
        break;
      case 'f':
        out += '\f';
        break;
      case 'n':
        out += '\n';
        break;
      case 'r':
        out += '\r';
        break;
      case 't':
        out += '\t';
        break;
      case 'v':
        out += '\v';
        break;
      case 'x':
        if (!hex(at_ + 1, 2, code)) return false;
        utf8::append(out, code);
        at_ += 3;
        return true;
      case 'u':
        return unicode_escape(out);
      case '\r':
        ++at_;
        take("\n");
        return true;
      case '\n':
        break;  // the line goes on
      case '0':
        if (at_ + 1 < text_.size() && is_digit(text_[at_ + 1])) return false;
        out += '\0';
        break;
      default: {
        if (is_digit(c)) return false;
        const utf8::Point next = point();
        if (next.value != 0x2028 && next.value != 0x2029) out += text_.substr(at_, next.length);
        at_ += next.length;
        return true;
      }
    }
    ++at_;
    return true;
  }

  bool unicode_escape(std::string& out) {
    char32_t high = 0, low = 0;
    if (!hex(at_ + 1, 4, high)) return false;
    at_ += 5;
    std::u16string units(1, static_cast<char16_t>(high));
    const bool leads = high >= 0xD800 && high < 0xDC00;
    if (leads && text_.substr(at_).starts_with("\\u") && hex(at_ + 2, 4, low) && low >= 0xDC00 &&
        low < 0xE000) {
      units += static_cast<char16_t>(low);
      at_ += 6;
    }
    out += unicode::from_utf16(units);
    return true;
  }

  bool number(OrderedJson& out) {
    bool negative = false;
    if (!take("+")) negative = take("-");
    if (word("Infinity") || word("NaN")) {
      if (!rules_.constants) return false;
      const double value = text_[at_ - 1] == 'y' ? std::numeric_limits<double>::infinity()
                                                 : std::numeric_limits<double>::quiet_NaN();
      return put(out, OrderedJson::of_float(negative ? -value : value));
    }
    const size_t begin = at_;
    if (take("0x") || take("0X")) {
      while (!at_end() && hex_value(text_[at_]) >= 0) ++at_;
      const std::string digits = decimal_of_hex(text_.substr(begin + 2, at_ - begin - 2));
      if (at_ == begin + 2 || digits.empty()) return false;
      return ends_number() && put(out, OrderedJson::of_integer((negative ? "-" : "") + digits));
    }
    const auto digits = [&] {
      const size_t from = at_;
      while (!at_end() && is_digit(text_[at_])) ++at_;
      return at_ - from;
    };
    const size_t whole = digits();
    if (whole > 1 && text_[begin] == '0') return false;
    bool integer = true;
    size_t fraction = 0;
    if (take(".")) {
      integer = false;
      fraction = digits();
    }
    if (whole + fraction == 0) return false;
    if (take("e") || take("E")) {
      integer = false;
      if (!take("+")) take("-");
      if (digits() == 0) return false;
    }
    if (!ends_number()) return false;
    std::string literal = negative ? "-" : "";
    literal += text_.substr(begin, at_ - begin);
    if (integer) return put(out, OrderedJson::of_integer(std::move(literal)));
    const double value = std::strtod(literal.c_str(), nullptr);
    if (!rules_.constants && !(value - value == 0)) return false;  // past the largest double
    return put(out, OrderedJson::of_float(value));
  }

  bool ends_number() const { return at_end() || !continues_identifier(point().value); }

  std::string_view text_;
  Json5Rules rules_;
  size_t at_ = 0;
  bool repaired_ = false;
};

}  // namespace

std::optional<Json5Value> read_json5(std::string_view text, const Json5Rules& rules) {
  Reader reader(text, rules);
  Json5Value out;
  if (!reader.value(out.value, 0)) return std::nullopt;
  out.end = reader.at();
  out.repaired = reader.repaired();
  return out;
}

std::optional<OrderedJson> parse_json5(std::string_view text, const Json5Rules& rules) {
  Reader reader(text, rules);
  OrderedJson out;
  if (!reader.value(out, 0) || !reader.skip() || !reader.at_end()) return std::nullopt;
  return out;
}

size_t skip_json5_space(std::string_view text, size_t at) noexcept {
  while (at < text.size()) {
    const utf8::Point next = utf8::decode(text.substr(at));
    if (!next.valid || !is_space(next.value)) break;
    at += next.length;
  }
  return at;
}

std::string_view trim_json5_space(std::string_view text) noexcept {
  text.remove_prefix(skip_json5_space(text, 0));
  // Backwards: each white space begins with a lead byte and has at most three bytes.
  while (!text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    if (skip_json5_space(text.substr(begin), 0) != text.size() - begin) break;
    text = text.substr(0, begin);
  }
  return text;
}

}  // namespace quern
