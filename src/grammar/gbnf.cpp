// Grammars from GBNF.
#include <fmt/format.h>

#include <unordered_map>

#include "core/error.h"
#include "core/utf8.h"
#include "grammar/notation.h"

namespace quern {
namespace {

using Symbol = Grammar::Symbol;
using Sequence = Grammar::Sequence;

class Gbnf : NotationReader {
 public:
  explicit Gbnf(std::string_view text) : NotationReader(text, "the grammar") {}

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
      Sequence item = this->item();
      int64_t least = 1, most = 1;
      if (repetition(least, most)) item = {grammar_.repeat(item, least, most)};
      list.back().insert(list.back().end(), item.begin(), item.end());
    }
    if (--depth_ == 0 && peek() == ')') fail("a ) too many");
    return alternatives(list);
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
    if (take("[")) return {grammar_.characters(character_class())};
    if (take(".")) return {grammar_.characters({{0, kLastPoint}})};
    const std::string word = name();
    if (word.empty()) fail("expected an item");
    return {Grammar::of_rule(rule_of(word).id)};
  }
  CodePoints own_escape(uint32_t c, bool) override {
    if (c != 'U') return plain_escape(c, "\\\"[]-^");
    const uint32_t point = hex(8);
    if (point >= 0xD800 && point <= 0xDFFF) fail("that is half a character");
    return single(point);
  }
  Symbol alternatives(const std::vector<Sequence>& list) {
    const uint32_t rule = grammar_.new_rule();
    for (const Sequence& sequence : list) grammar_.add(rule, sequence);
    return Grammar::of_rule(rule);
  }

  Grammar grammar_;
  std::unordered_map<std::string, Rule> rules_;
};

}  // namespace

Grammar grammar_from_gbnf(std::string_view text) { return Gbnf(text).parse(); }

}  // namespace quern
