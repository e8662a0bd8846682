#include "text/template/lexer.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <charconv>

#include "core/utf8.h"
#include "text/template/python_text.h"
#include "text/template/template_error.h"

namespace quern::chat_template {
namespace {

using Kind = Token::Kind;

constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                           "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                           ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};

// One kind of line end, and none at the end of the whole.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

bool digit(char c) { return c >= '0' && c <= '9'; }

bool name_point(char32_t point, bool first) {
  if (point == '_') return true;
  if (point < 0x80) {
    return (point >= 'a' && point <= 'z') || (point >= 'A' && point <= 'Z') ||
           (!first && point >= '0' && point <= '9');
  }
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(point));
  if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) return true;
  return category == UTF8PROC_CATEGORY_NL ||
         (!first && (category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
                     category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_PC));
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) data();
    add(Kind::End, {});
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  [[noreturn]] void syntax(const std::string& problem) const {
    fail(TemplateError::Cause::Syntax, fmt::format("line {}: {}", line_, problem));
  }
  void add(Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  // Goes on, and remembers whether a line begins there.
  void advance(size_t count) {
    line_ +=
        static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(at_),
                                    source_.begin() + static_cast<ptrdiff_t>(at_ + count), '\n'));
    at_ += count;
    if (count > 0) line_starts_ = source_[at_ - 1] == '\n';
  }
  void skip_space() {
    const std::string_view text = rest();
    advance(strip(text, Side::Left).begin);
  }

  // The text before a tag, with the white space that the tag takes away.
  std::string_view before_tag(std::string_view text, char sign, bool variable) const {
    if (sign == '-') return text.substr(0, strip(text, Side::Right).end);
    if (sign == '+' || variable) return text;
    const size_t feed = text.rfind('\n');
    const size_t begin = feed == text.npos ? 0 : feed + 1;
    if (begin == 0 && !line_starts_) return text;
    return is_all_space(text.substr(begin)) ? text.substr(0, begin) : text;
  }
  char sign_at(size_t at) const {
    return at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : ' ';
  }

  void data() {
    size_t tag = at_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos) {
        add(Kind::Data, std::string(rest()));
        advance(source_.size() - at_);
        return;
      }
      const char next = tag + 1 < source_.size() ? source_[tag + 1] : ' ';
      if (next == '%' || next == '{' || next == '#') break;
    }
    const char type = source_[tag + 1], sign = sign_at(tag + 2);
    const std::string_view text = before_tag(rest().substr(0, tag - at_), sign, type == '{');
    if (!text.empty()) add(Kind::Data, std::string(text));
    advance(tag + 2 + (sign == ' ' ? 0 : 1) - at_);
    if (type == '#') {
      comment();
    } else if (type == '{') {
      add(Kind::VariableBegin, {});
      inside(/*variable=*/true);
    } else if (!raw()) {
      add(Kind::BlockBegin, {});
      inside(/*variable=*/false);
    }
  }

  // Steps over the closing delimiter at `close`, and over the text that it strips.
  void close_tag(size_t close, size_t sign_size, bool trims_feed) {
    const bool strips = sign_size == 1 && source_[close] == '-';
    const bool keeps = sign_size == 1 && source_[close] == '+';
    advance(close + sign_size + 2 - at_);
    if (strips) {
      skip_space();
    } else if (trims_feed && !keeps && rest().starts_with('\n')) {
      advance(1);
    }
  }

  void comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) syntax("Missing end of comment tag");
    const bool sign = end > at_ && (source_[end - 1] == '-' || source_[end - 1] == '+');
    close_tag(sign ? end - 1 : end, sign ? 1 : 0, /*trims_feed=*/true);
  }

  // {% raw %} ... {% endraw %}, whose opening the lexer stands behind.
  bool raw() {
    size_t at = at_;
    const auto space = [&] { at += strip(std::string_view(source_).substr(at), Side::Left).begin; };
    const auto word = [&](std::string_view name) {
      if (!std::string_view(source_).substr(at).starts_with(name)) return false;
      at += name.size();
      return true;
    };
    space();
    if (!word("raw")) return false;
    space();
    const bool strips = word("-");
    if (!word("%}")) return false;
    if (strips) space();
    advance(at - at_);
    for (size_t begin = at_;;) {
      begin = source_.find("{%", begin);
      if (begin == std::string::npos) syntax("Missing end of raw directive");
      const char sign = sign_at(begin + 2);
      at = begin + 2 + (sign == ' ' ? 0 : 1);
      space();
      if (word("endraw")) {
        space();
        const size_t close = at;
        const size_t sign_size = word("-") || word("+") ? 1 : 0;
        if (word("%}")) {
          const auto text = before_tag(rest().substr(0, begin - at_), sign, false);
          if (!text.empty()) add(Kind::Data, std::string(text));
          close_tag(close, sign_size, /*trims_feed=*/true);
          return true;
        }
      }
      begin += 2;
    }
  }

  void inside(bool variable) {
    const std::string_view end = variable ? "}}" : "%}";
    std::string open;  // brackets
    for (;;) {
      skip_space();
      if (at_ >= source_.size()) {
        syntax(variable ? "unexpected end of template, expected '}}'"
                        : "unexpected end of template, expected '%}'");
      }
      const std::string_view text = rest();
      const bool signed_end =
          (text[0] == '-' || (!variable && text[0] == '+')) && text.substr(1).starts_with(end);
      if (open.empty() && (signed_end || text.starts_with(end))) {
        add(variable ? Kind::VariableEnd : Kind::BlockEnd, {});
        close_tag(at_, signed_end ? 1 : 0, /*trims_feed=*/!variable);
        return;
      }
      if (number() || name() || string()) continue;
      operation(open);
    }
  }

  // Length of the digits that `text` begins with, single underscores between them included.
  static size_t digits(std::string_view text, bool (*good)(char)) {
    size_t size = 0;
    while (size < text.size() &&
           (good(text[size]) || (text[size] == '_' && size > 0 && text[size - 1] != '_' &&
                                 size + 1 < text.size() && good(text[size + 1])))) {
      ++size;
    }
    return size;
  }
  void add_number(Kind kind, size_t size) {
    std::string text(rest().substr(0, size));
    std::erase(text, '_');
    add(kind, std::move(text));
    advance(size);
  }
  bool number() {
    const std::string_view text = rest();
    if (!digit(text[0])) return false;
    if (text.size() > 2 && text[0] == '0') {
      const char base = static_cast<char>(text[1] | 0x20);
      bool (*good)(char) = nullptr;
      if (base == 'x')
        good = [](char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; };
      if (base == 'o') good = [](char c) { return c >= '0' && c <= '7'; };
      if (base == 'b') good = [](char c) { return c == '0' || c == '1'; };
      const size_t skip = text[2] == '_' ? 3 : 2;
      if (good != nullptr) {
        if (const size_t size = digits(text.substr(skip), good); size > 0) {
          add_number(Kind::Integer, skip + size);
          return true;
        }
      }
    }
    size_t size = digits(text, digit);
    bool real = false;
    if (size + 1 < text.size() && text[size] == '.' && digit(text[size + 1])) {
      size += 1 + digits(text.substr(size + 1), digit);
      real = true;
    }
    if (size < text.size() && (text[size] | 0x20) == 'e') {
      const size_t sign =
          size + 1 < text.size() && (text[size + 1] == '+' || text[size + 1] == '-');
      if (const size_t power = digits(text.substr(std::min(size + 1 + sign, text.size())), digit)) {
        size += 1 + sign + power;
        real = true;
      }
    }
    if (!real && text[0] == '0') {
      // Zeros alone: 012 is the two numbers 0 and 12, which no grammar takes.
      size = digits(text, [](char c) { return c == '0'; });
    }
    add_number(real ? Kind::Float : Kind::Integer, size);
    return true;
  }

  bool name() {
    const std::string_view text = rest();
    size_t size = 0;
    while (size < text.size()) {
      const utf8::Point point = utf8::decode(text.substr(size));
      if (!name_point(point.value, size == 0)) break;
      size += point.length;
    }
    if (size == 0) return false;
    add(Kind::Name, std::string(text.substr(0, size)));
    advance(size);
    return true;
  }

  bool string() {
    const char quote = rest()[0];
    if (quote != '"' && quote != '\'') return false;
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) syntax(fmt::format("unexpected char '{}' at {}", quote, at_));
    add(Kind::String, unescaped(std::string_view(source_).substr(at_ + 1, end - at_ - 1)));
    advance(end + 1 - at_);
    return true;
  }

  // As Python's unicode-escape: what is no escape keeps its backslash.
  std::string unescaped(std::string_view text) const {
    std::string out;
    while (!text.empty()) {
      const size_t slash = std::min(text.find('\\'), text.size());
      out += text.substr(0, slash);
      text.remove_prefix(slash);
      if (text.size() < 2) {
        out += text;
        break;
      }
      const char c = text[1];
      text.remove_prefix(2);
      constexpr std::string_view kLetters = "abfnrtv\\'\"", kMeant = "\a\b\f\n\r\t\v\\'\"";
      if (const size_t at = kLetters.find(c); at != kLetters.npos) {
        out += kMeant[at];
      } else if (c == '\n') {
        continue;
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t size = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        utf8::append(out, code(text, size, 16, size));
      } else if (c >= '0' && c <= '7') {
        size_t size = 1;
        while (size < 3 && size <= text.size() && text[size - 1] >= '0' && text[size - 1] <= '7') {
          ++size;
        }
        std::string all = c + std::string(text.substr(0, size - 1));
        text.remove_prefix(size - 1);
        std::string_view octal = all;
        utf8::append(out, code(octal, size, 8, size));
      } else if (c == 'N') {
        syntax("names of characters (\\N{...}) are not known here");
      } else {
        out += '\\';
        out += c;
      }
    }
    return out;
  }
  char32_t code(std::string_view& text, size_t size, int base, size_t need) const {
    const std::string_view digits = text.substr(0, size);
    uint32_t value = 0;
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (digits.size() < need || read.ec != std::errc() ||
        read.ptr != digits.data() + digits.size() || value > 0x10FFFF) {
      syntax("a string has a truncated or wrong escape");
    }
    text.remove_prefix(size);
    return value >= 0xD800 && value < 0xE000 ? 0xFFFD : static_cast<char32_t>(value);
  }

  void operation(std::string& open) {
    const std::string_view text = rest();
    const auto* found = std::find_if(std::begin(kOperators), std::end(kOperators),
                                     [&](std::string_view op) { return text.starts_with(op); });
    if (found == std::end(kOperators)) {
      syntax(fmt::format("unexpected char '{}' at {}",
                         printable(text.substr(0, utf8::decode(text).length)), at_));
    }
    const char c = (*found)[0];
    if (c == '(' || c == '[' || c == '{') {
      open += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) syntax(fmt::format("unexpected '{}'", c));
      if (open.back() != c) syntax(fmt::format("unexpected '{}', expected '{}'", c, open.back()));
      open.pop_back();
    }
    add(Kind::Operator, std::string(*found));
    advance(found->size());
  }

  std::string source_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starts_ = true;
};

}  // namespace

std::vector<Token> tokenize_template(std::string_view source) {
  return Lexer(normalized(source)).run();
}

}  // namespace quern::chat_template
