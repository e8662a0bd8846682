#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/utf8.h"
#include "text/pipeline/regex.h"

namespace quern {
namespace {

// What stands inside of brackets for Oniguruma's classes of characters. White space is Unicode's
// property: U+0085 belongs to it, U+180E and U+001C to U+001F do not.
constexpr std::string_view kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNoSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
constexpr std::string_view kWord = R"(\p{L}\p{M}\p{Nd}\p{Pc})";
constexpr std::string_view kHexDigit = "0-9a-fA-F";

constexpr std::pair<std::string_view, std::string_view> kLongNames[] = {
    {"letter", "L"},
    {"uppercaseletter", "Lu"},
    {"lowercaseletter", "Ll"},
    {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"mark", "M"},
    {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"punctuation", "P"},
    {"connectorpunctuation", "Pc"},
    {"dashpunctuation", "Pd"},
    {"openpunctuation", "Ps"},
    {"closepunctuation", "Pe"},
    {"initialpunctuation", "Pi"},
    {"finalpunctuation", "Pf"},
    {"otherpunctuation", "Po"},
    {"symbol", "S"},
    {"mathsymbol", "Sm"},
    {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"},
    {"othersymbol", "So"},
    {"separator", "Z"},
    {"spaceseparator", "Zs"},
    {"lineseparator", "Zl"},
    {"paragraphseparator", "Zp"},
    {"other", "C"},
    {"control", "Cc"},
    {"format", "Cf"},
    {"surrogate", "Cs"},
    {"privateuse", "Co"},
    {"unassigned", "Cn"},
    {"digit", "Nd"},
    {"cntrl", "Cc"},
    {"any", "Any"},
    {"alpha", "Alphabetic"},
    {"upper", "Uppercase"},
    {"lower", "Lowercase"}};

// Names of characters' properties that are no scripts.
constexpr std::string_view kBinary[] = {
    "alphabetic", "uppercase", "lowercase", "whitespace", "math",  "ideographic", "emoji",
    "dash",       "hexdigit",  "diacritic", "cased",      "ascii", "any"};

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (at_ < pattern_.size()) item();
    if (!groups_.empty()) fail("a group is not closed");
    return std::move(out_);
  }

 private:
  // A class of characters: what stands in brackets, or an expression for one character where that
  // does not do.
  struct Class {
    std::string body, expression;
    bool simple = true;
  };

  [[noreturn]] void fail(const std::string& problem) const {
    throw_bad_input(
        fmt::format("the expression {} is not understood: {}", printable(pattern_, 200), problem));
  }
  bool ahead(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  char peek(size_t more = 0) const {
    return at_ + more < pattern_.size() ? pattern_[at_ + more] : '\0';
  }

  void atom(std::string_view text) {
    atom_ = out_.size();
    out_ += text;
  }

  void item() {
    const char c = peek();
    switch (c) {
      case '\\':
        escape();
        return;
      case '[': {
        const Class read = read_class();
        atom(read.simple ? '[' + read.body + ']' : read.expression);
        return;
      }
      case '(':
        open();
        return;
      case ')':
        if (groups_.empty()) fail("a group is closed that was not opened");
        atom_ = groups_.back();
        groups_.pop_back();
        out_ += ')';
        ++at_;
        return;
      case '*':
      case '+':
      case '?':
        out_ += c;
        ++at_;
        if (peek() == '?' || peek() == '+') out_ += pattern_[at_++];
        return;
      case '{':
        if (interval()) return;
        atom("\\{");
        ++at_;
        return;
      case '|':
      case '^':
      case '$':
      case '.':
        atom(std::string_view(&c, 1));
        ++at_;
        return;
      default: {
        const size_t length = utf8::decode(pattern_.substr(at_)).length;
        atom(pattern_.substr(at_, length));
        at_ += length;
      }
    }
  }

  // {n}, {n,}, {,m}, {n,m}. What follows one is no mark of its kind: '+' repeats it, and so does
  // '?' behind {n}.
  bool interval() {
    size_t i = at_ + 1;
    const auto number = [&] {
      const size_t begin = i;
      while (i < pattern_.size() && pattern_[i] >= '0' && pattern_[i] <= '9') ++i;
      return std::string(pattern_.substr(begin, i - begin));
    };
    const std::string low = number();
    const bool range = i < pattern_.size() && pattern_[i] == ',';
    std::string high;
    if (range) {
      ++i;
      high = number();
    }
    if (i >= pattern_.size() || pattern_[i] != '}' || (low.empty() && high.empty())) return false;
    at_ = i + 1;
    out_ += fmt::format("{{{}{}{}}}", low.empty() ? "0" : low, range ? "," : "", high);
    if (peek() == '+' || (peek() == '?' && !range)) {
      out_.insert(atom_, "(?:");
      out_ += ')';
      out_ += pattern_[at_++];
    } else if (peek() == '?') {
      out_ += pattern_[at_++];
    }
    return true;
  }

  void open() {
    groups_.push_back(out_.size());
    if (ahead("(*")) fail("(* begins a verb, which is not taken");
    if (!ahead("(?")) {
      out_ += '(';
      ++at_;
      return;
    }
    for (const std::string_view kind : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"}) {
      if (ahead(kind)) {
        out_ += kind;
        at_ += kind.size();
        return;
      }
    }
    if (ahead("(?#")) {
      groups_.pop_back();
      at_ = pattern_.find(')', at_);
      if (at_ == pattern_.npos) fail("a comment is not closed");
      ++at_;
      return;
    }
    if (ahead("(?<")) {  // a name
      const size_t end = pattern_.find('>', at_);
      if (end == pattern_.npos) fail("a group's name is not closed");
      out_ += pattern_.substr(at_, end + 1 - at_);
      at_ = end + 1;
      return;
    }
    out_ += "(?";
    at_ += 2;
    for (; peek() != ':' && peek() != ')'; ++at_) {
      switch (peek()) {
        case 'i':
        case 'x':
        case '-':
          out_ += peek();
          break;
        case 'm':
          out_ += 's';  // Ruby's m lets the dot take line breaks
          break;
        default:
          fail(fmt::format("a group begins with (?{}", printable(pattern_.substr(at_, 1))));
      }
    }
    out_ += peek();
    if (peek() == ')') groups_.pop_back();  // an option for what follows
    ++at_;
  }

  // Of \x41, \x{1F600}, A; at_ stands behind it.
  std::optional<char32_t> code_point() {
    const auto hex = [&](size_t at, size_t most, size_t& taken) {
      char32_t value = 0;
      for (taken = 0; taken < most && at + taken < pattern_.size(); ++taken) {
        const char c = pattern_[at + taken];
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) break;
        value = value << 4 | static_cast<char32_t>(digit);
      }
      return value;
    };
    const char kind = peek(1);
    size_t taken = 0;
    if (kind == 'x' && peek(2) == '{') {
      const char32_t value = hex(at_ + 3, 8, taken);
      if (taken == 0 || peek(3 + taken) != '}' || value > 0x10FFFF) fail("a code point is wrong");
      at_ += 4 + taken;
      return value;
    }
    if (kind == 'x' || kind == 'u') {
      const char32_t value = hex(at_ + 2, kind == 'x' ? 2 : 4, taken);
      if (taken == 0 || (kind == 'u' && taken != 4)) fail("a code point is wrong");
      at_ += 2 + taken;
      return value;
    }
    constexpr std::pair<char, char32_t> kNamed[] = {{'t', 9},  {'n', 10}, {'v', 11}, {'f', 12},
                                                    {'r', 13}, {'a', 7},  {'e', 27}, {'0', 0}};
    for (const auto& [name, value] : kNamed) {
      if (kind != name) continue;
      at_ += 2;
      return value;
    }
    return std::nullopt;
  }

  // \p{Name}, \P{Name}, \p{^Name}: as PCRE2 has it. Names of scripts mean the script itself.
  std::string property() {
    bool negated = peek(1) == 'P';
    at_ += 2;
    std::string name;
    if (peek() == '{') {
      const size_t end = pattern_.find('}', at_);
      if (end == pattern_.npos) fail("a property's name is not closed");
      name = pattern_.substr(at_ + 1, end - at_ - 1);
      at_ = end + 1;
    } else {
      name = pattern_.substr(at_, 1);
      ++at_;
    }
    if (name.starts_with('^')) {
      negated = !negated;
      name.erase(0, 1);
    }
    const bool plain = !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ' ' || c == '-';
    });
    if (!plain) fail(fmt::format("the property '{}' is not known", printable(name, 40)));
    std::string key;
    for (const char c : name) {
      if (c != '_' && c != ' ' && c != '-') key += static_cast<char>(c | 0x20);
    }
    if (key == "space" || key == "whitespace") return std::string(negated ? kNoSpace : kSpace);
    if (key.size() > 2) {
      const auto known = std::find_if(std::begin(kLongNames), std::end(kLongNames),
                                      [&](const auto& entry) { return entry.first == key; });
      const bool binary =
          std::find(std::begin(kBinary), std::end(kBinary), key) != std::end(kBinary);
      name = known != std::end(kLongNames) ? std::string(known->second)
             : binary                      ? key
                                           : "sc:" + key;
    } else {
      name = std::string(1, static_cast<char>(key[0] & ~0x20)) + key.substr(1);
    }
    return fmt::format("\\{}{{{}}}", negated ? 'P' : 'p', name);
  }

  // A class by its letter: what stands in brackets, and whether all else is meant.
  std::optional<std::pair<std::string_view, bool>> shorthand() const {
    switch (peek(1)) {
      case 's':
        return {{kSpace, false}};
      case 'S':
        return {{kNoSpace, false}};
      case 'd':
        return {{"\\p{Nd}", false}};
      case 'D':
        return {{"\\P{Nd}", false}};
      case 'w':
        return {{kWord, false}};
      case 'W':
        return {{kWord, true}};
      case 'h':
        return {{kHexDigit, false}};
      case 'H':
        return {{kHexDigit, true}};
      default:
        return std::nullopt;
    }
  }

  static std::string literal(char32_t point) {
    return fmt::format("\\x{{{:x}}}", static_cast<uint32_t>(point));
  }

  void escape() {
    if (at_ + 1 == pattern_.size()) fail("it ends with a backslash");
    const char kind = peek(1);
    if (kind == 'p' || kind == 'P') {
      atom('[' + property() + ']');
      return;
    }
    if (const auto set = shorthand()) {
      atom(fmt::format("[{}{}]", set->second ? "^" : "", set->first));
      at_ += 2;
      return;
    }
    if (const auto point = code_point()) {
      atom(literal(*point));
      return;
    }
    if (kind == 'b' || kind == 'B') {
      const std::string word = fmt::format("[{}]", kWord);
      atom(kind == 'b' ? fmt::format("(?:(?<={0})(?!{0})|(?<!{0})(?={0}))", word)
                       : fmt::format("(?:(?<={0})(?={0})|(?<!{0})(?!{0}))", word));
      at_ += 2;
      return;
    }
    const bool letter = (kind >= 'a' && kind <= 'z') || (kind >= 'A' && kind <= 'Z');
    constexpr std::string_view kSame = "AzZGKRX";
    if (letter && kSame.find(kind) == kSame.npos) fail(std::string("\\") + kind + " is not known");
    const size_t length = utf8::decode(pattern_.substr(at_ + 1)).length;
    atom(pattern_.substr(at_, 1 + length));
    at_ += 1 + length;
  }

  // A character in brackets, or the end of a range.
  char32_t class_character() {
    if (peek() == '\\') {
      if (const auto point = code_point()) return *point;
      if (peek(1) == 'b') {
        at_ += 2;
        return 8;
      }
      ++at_;
      if (at_ == pattern_.size()) fail("it ends with a backslash");
    }
    const utf8::Point point = utf8::decode(pattern_.substr(at_));
    at_ += point.length;
    return point.value;
  }

  Class read_class() {
    if (++depth_ > 16) fail("classes are nested deeper than 16 levels");
    ++at_;
    const bool negated = peek() == '^';
    if (negated) ++at_;
    std::vector<std::string> parts;  // of an intersection, but for the last
    Class own;
    std::vector<std::string> others;
    const auto expression = [&] {
      if (others.empty()) return '[' + own.body + ']';
      std::string all = "(?:";
      if (!own.body.empty()) all += '[' + own.body + "]|";
      for (const std::string& other : others) all += other + '|';
      all.back() = ')';
      return all;
    };
    bool first = true;
    while (true) {
      if (at_ >= pattern_.size()) fail("a class is not closed");
      if (peek() == ']' && !first) break;
      first = false;
      if (ahead("&&")) {
        if (own.body.empty() && others.empty()) fail("&& has nothing before it");
        parts.push_back(expression());
        own.body.clear();
        others.clear();
        at_ += 2;
        continue;
      }
      if (ahead("[:")) {
        posix(own.body, others);
        continue;
      }
      if (peek() == '[') {
        Class inner = read_class();
        if (inner.simple && !inner.body.starts_with('^')) {
          own.body += inner.body;
        } else {
          others.push_back(inner.simple ? '[' + inner.body + ']' : inner.expression);
        }
        continue;
      }
      if (peek() == '\\' && (peek(1) == 'p' || peek(1) == 'P')) {
        own.body += property();
        continue;
      }
      if (const auto set = peek() == '\\' ? shorthand() : std::nullopt) {
        if (set->second) {
          others.push_back(fmt::format("[^{}]", set->first));
        } else {
          own.body += set->first;
        }
        at_ += 2;
        continue;
      }
      const char32_t low = class_character();
      own.body += literal(low);
      const bool range = peek() == '-' && peek(1) != ']' && peek(1) != '[' &&
                         at_ + 1 < pattern_.size() &&
                         !(peek(1) == '\\' &&
                           std::string_view("pPsSdDwWhH").find(peek(2)) != std::string_view::npos);
      if (range) {
        ++at_;
        const char32_t high = class_character();
        if (high < low) fail("a range ends before it begins");
        own.body += '-' + literal(high);
      }
    }
    ++at_;
    --depth_;
    if (own.body.empty() && others.empty()) fail("a class is empty");
    if (parts.empty() && others.empty()) {
      if (negated) own.body.insert(0, "^");
      return own;
    }
    std::string whole = expression();
    if (!parts.empty()) {
      std::string ahead_of_it;
      for (const std::string& part : parts) ahead_of_it += "(?=" + part + ')';
      whole = "(?:" + ahead_of_it + whole + ')';
    }
    own.simple = false;
    own.expression = negated ? "(?:(?!" + whole + ")(?s:.))" : whole;
    return own;
  }

  void posix(std::string& body, std::vector<std::string>& others) {
    const size_t end = pattern_.find(":]", at_);
    if (end == pattern_.npos) fail("a class's name is not closed");
    std::string_view name = pattern_.substr(at_ + 2, end - at_ - 2);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    constexpr std::pair<std::string_view, std::string_view> kNames[] = {
        {"alpha", "\\p{Alphabetic}"},
        {"digit", "\\p{Nd}"},
        {"alnum", "\\p{Alphabetic}\\p{Nd}"},
        {"upper", "\\p{Uppercase}"},
        {"lower", "\\p{Lowercase}"},
        {"space", kSpace},
        {"punct", "\\p{P}\\x{24}\\x{2b}\\x{3c}-\\x{3e}\\x{5e}\\x{60}\\x{7c}\\x{7e}"},
        {"cntrl", "\\p{Cc}"},
        {"blank", "\\p{Zs}\\x{9}"},
        {"xdigit", kHexDigit},
        {"word", kWord},
        {"ascii", "\\x{0}-\\x{7f}"}};
    const auto known = std::find_if(std::begin(kNames), std::end(kNames),
                                    [&](const auto& entry) { return entry.first == name; });
    if (known == std::end(kNames)) {
      fail(fmt::format("the class [:{}:] is not known", printable(name, 40)));
    }
    at_ = end + 2;
    if (negated) {
      others.push_back(fmt::format("[^{}]", known->second));
    } else {
      body += known->second;
    }
  }

  std::string_view pattern_;
  size_t at_ = 0;
  std::string out_;
  size_t atom_ = 0;             // where the last atom begins in out_
  std::vector<size_t> groups_;  // where open groups begin
  int depth_ = 0;
};

}  // namespace

std::string pcre_syntax(std::string_view pattern) { return Translator(pattern).run(); }

}  // namespace quern
