// Grammars from GBNF and from regular expressions.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "core/error.h"
#include "core/utf8.h"
#include "grammar/grammar.h"

namespace quern {
namespace {

using Symbol = Grammar::Symbol;
using Sequence = Grammar::Sequence;
constexpr uint32_t kLastPoint = 0x10FFFF;

// What both notations share: alternatives of items that may be repeated, groups, classes.
class Parser {
 public:
  Parser(std::string_view text, const char* what) : text_(text), what_(what) {
    if (text.size() > kMaxGrammarBytes) {
      throw_bad_input(fmt::format("{} has {} bytes, at most {} are taken", what, text.size(),
                                  kMaxGrammarBytes));
    }
    if (!utf8::is_valid(text)) throw_bad_input(fmt::format("{} is no UTF-8", what));
  }
  virtual ~Parser() = default;

 protected:
  [[noreturn]] void fail(const std::string& problem) const {
    throw_bad_input(fmt::format("{}, byte {}: {}", what_, at_, problem));
  }
  bool done() const { return at_ >= text_.size(); }
  char peek() const { return done() ? '\0' : text_[at_]; }
  bool take(std::string_view wanted) {
    if (!text_.substr(std::min(at_, text_.size())).starts_with(wanted)) return false;
    at_ += wanted.size();
    return true;
  }
  uint32_t point() {
    if (done()) fail("ends too early");
    const utf8::Point p = utf8::decode(text_.substr(at_));
    at_ += p.length;
    return p.value;
  }
  uint32_t hex(int digits) {
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      constexpr std::string_view kDigits = "0123456789abcdef";
      const char c = peek();
      const size_t digit = kDigits.find(c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c);
      if (done() || digit == kDigits.npos) fail("expected a hexadecimal digit");
      value = 16 * value + static_cast<uint32_t>(digit);
      ++at_;
    }
    if (value > kLastPoint || (value >= 0xD800 && value <= 0xDFFF)) fail("that is no character");
    return value;
  }
  int64_t count() {
    int64_t value = -1;
    for (; peek() >= '0' && peek() <= '9'; ++at_) {
      value = std::min<int64_t>(10 * std::max<int64_t>(value, 0) + (peek() - '0'), 1'000'000'000);
    }
    return value;
  }

  // *, +, ?, {m}, {m,} or {m,n} behind an item.
  Sequence repeated(Sequence item) {
    int64_t least = 1, most = 1;
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
      return item;
    }
    return {grammar_.repeat(item, least, most)};
  }

  // What an escape in a class or an item stands for; the backslash is taken.
  CodePoints escape() {
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
      case 'u':
        return single(hex(4));
      default:
        return own_escape(c);
    }
  }
  // Of what the notations don't share.
  virtual CodePoints own_escape(uint32_t c) = 0;
  static CodePoints single(uint32_t point) { return {{point, point}}; }
  // c itself, where it is one of the characters that a backslash may stand before.
  CodePoints plain_escape(uint32_t c, std::string_view characters) const {
    if (c >= 0x80 || characters.find(static_cast<char>(c)) == characters.npos) {
      fail("that escape is not known");
    }
    return single(c);
  }

  // Behind [.
  Symbol character_class() {
    const bool negated = take("^");
    CodePoints ranges;
    for (bool first = true; first || peek() != ']'; first = false) {
      if (done()) fail("the class has no ]");
      if (first && peek() == ']') fail("the class is empty");
      CodePoints low = class_item();
      const bool range = peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']';
      if (range) {
        ++at_;
        const CodePoints high = class_item();
        const bool single = low.size() == 1 && low[0].first == low[0].second && high.size() == 1 &&
                            high[0].first == high[0].second;
        if (!single || high[0].first < low[0].first) fail("the class has a bad range");
        low[0].second = high[0].second;
      }
      ranges.insert(ranges.end(), low.begin(), low.end());
    }
    ++at_;
    const Symbol symbol =
        grammar_.characters(negated ? Grammar::complement(ranges) : std::move(ranges));
    return symbol;
  }
  CodePoints class_item() {
    if (take("\\")) return escape();
    return single(point());
  }

  Symbol alternatives(std::vector<Sequence> list) {
    const uint32_t rule = grammar_.new_rule();
    for (const Sequence& sequence : list) grammar_.add(rule, sequence);
    return Grammar::of_rule(rule);
  }

  std::string_view text_;
  const char* what_;
  size_t at_ = 0;
  int depth_ = 0;
  Grammar grammar_;
};

class Gbnf : Parser {
 public:
  explicit Gbnf(std::string_view text) : Parser(text, "the grammar") {}

  Grammar parse() {
    for (space(); !done(); space()) {
      const std::string word = name();
      if (word.empty()) fail("expected a rule's name");
      space();
      if (!take("::=")) fail("expected ::=");
      Rule& rule = rule_of(word);
      if (rule.defined) fail(fmt::format("the rule {} stands here a second time", word));
      rule.defined = true;
      const uint32_t id = rule.id;
      grammar_.add(id, {body()});
    }
    for (const auto& [word, rule] : rules_) {
      if (!rule.defined) {
        throw_bad_input(fmt::format("the grammar has no rule {}", printable(word, 40)));
      }
    }
    const auto root = rules_.find("root");
    if (root == rules_.end()) throw_bad_input("the grammar has no rule root");
    grammar_.finish(root->second.id);
    return std::move(grammar_);
  }

 private:
  struct Rule {
    uint32_t id;
    bool defined = false;
  };
  Rule& rule_of(const std::string& word) {
    const auto found = rules_.find(word);
    if (found != rules_.end()) return found->second;
    return rules_[word] = {grammar_.new_rule()};
  }
  void space() {
    while (!done()) {
      if (peek() == '#') {
        while (!done() && peek() != '\n') ++at_;
      } else if (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r') {
        ++at_;
      } else {
        return;
      }
    }
  }
  std::string name() {
    const size_t begin = at_;
    const auto good = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             c == '-' || c == '_';
    };
    while (good(peek())) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }
  // A name and ::= are the next rule.
  bool at_rule() {
    const size_t begin = at_;
    const bool rule = !name().empty() && (space(), take("::="));
    at_ = begin;
    return rule;
  }
  Symbol body() {
    if (++depth_ > kMaxNesting) fail("the groups are nested too deeply");
    std::vector<Sequence> list(1);
    for (space(); !done() && peek() != ')' && !at_rule(); space()) {
      if (take("|")) {
        list.emplace_back();
        continue;
      }
      const Sequence item = repeated(this->item());
      list.back().insert(list.back().end(), item.begin(), item.end());
    }
    if (--depth_ == 0 && peek() == ')') fail("a ) too many");
    return alternatives(std::move(list));
  }
  Sequence item() {
    if (take("(")) {
      const Symbol group = body();
      if (!take(")")) fail("expected )");
      return {group};
    }
    if (take("\"")) {
      std::string literal;
      while (!take("\"")) {
        utf8::append(literal, take("\\") ? escape()[0].first : point());
      }
      if (literal.empty()) return {};
      // As one item, so that a repetition means all of it.
      return {alternatives({grammar_.literal(literal)})};
    }
    if (take("[")) return {character_class()};
    if (take(".")) return {grammar_.characters({{0, kLastPoint}})};
    const std::string word = name();
    if (word.empty()) fail("expected an item");
    return {Grammar::of_rule(rule_of(word).id)};
  }
  CodePoints own_escape(uint32_t c) override {
    return c == 'U' ? single(hex(8)) : plain_escape(c, "\\\"[]-^");
  }

  std::unordered_map<std::string, Rule> rules_;
};

class Regex : Parser {
 public:
  explicit Regex(std::string_view text) : Parser(text, "the regular expression") {}

  Grammar parse() {
    take("^");
    const Symbol root = body();
    if (!done()) fail("a ) too many");
    const uint32_t rule = grammar_.new_rule();
    grammar_.add(rule, {root});
    grammar_.finish(rule);
    return std::move(grammar_);
  }

 private:
  Symbol body() {
    if (++depth_ > kMaxNesting) fail("the groups are nested too deeply");
    std::vector<Sequence> list(1);
    while (!done() && peek() != ')') {
      if (take("|")) {
        list.emplace_back();
        continue;
      }
      if (depth_ == 1 && peek() == '$' && at_ + 1 == text_.size() && list.size() == 1) {
        ++at_;
        break;
      }
      const Sequence item = repeated(this->item());
      if (peek() == '?' || peek() == '+' || peek() == '*') fail("a repetition of a repetition");
      list.back().insert(list.back().end(), item.begin(), item.end());
    }
    --depth_;
    return alternatives(std::move(list));
  }
  Sequence item() {
    if (take("(")) {
      if (take("?") && !take(":")) fail("of groups with (? only (?: is known");
      const Symbol group = body();
      if (!take(")")) fail("expected )");
      return {group};
    }
    if (take("[")) return {character_class()};
    if (take(".")) return {grammar_.characters(Grammar::complement({{'\n', '\n'}}))};
    if (take("\\")) return {grammar_.characters(escape())};
    constexpr std::string_view kSpecial = "^$*+?{}]";
    if (kSpecial.find(peek()) != kSpecial.npos) {
      fail(fmt::format("{} cannot stand here; \\{} is the character", peek(), peek()));
    }
    return {grammar_.characters(single(point()))};
  }
  CodePoints own_escape(uint32_t c) override {
    const CodePoints digits = {{'0', '9'}};
    const CodePoints word = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    const CodePoints blank = {{'\t', '\r'}, {' ', ' '}};
    switch (c) {
      case 'd':
        return digits;
      case 'w':
        return word;
      case 's':
        return blank;
      case 'D':
        return Grammar::complement(digits);
      case 'W':
        return Grammar::complement(word);
      case 'S':
        return Grammar::complement(blank);
      default:
        return plain_escape(c, "\\^$.|?*+()[]{}/-\"'");
    }
  }
};

}  // namespace

Grammar grammar_from_gbnf(std::string_view text) { return Gbnf(text).parse(); }

Grammar grammar_from_regex(std::string_view pattern) { return Regex(pattern).parse(); }

}  // namespace quern
