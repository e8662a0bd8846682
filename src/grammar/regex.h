// Regular expressions as trees over code points: what JSON Schema's patterns and formats and an
// answer's own expression are made of. The dialect is what ECMA-262, Python and PCRE2 agree about;
// what they read differently, and what is no regular language (looking around, referring back), is
// refused.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "grammar/grammar.h"

namespace quern {

struct RegexNode;
using Regex = std::shared_ptr<const RegexNode>;  // shared: a part may stand in several trees

struct RegexNode {
  enum class Kind { Characters, Sequence, Choice, Repeat } kind;
  CodePoints set;               // of Characters
  std::vector<Regex> parts;     // of Sequence and Choice; the one of Repeat
  int64_t least = 1, most = 1;  // of Repeat; most -1: any number
};

enum class RegexUse {
  Whole,   // the text fits from its first to its last character
  Search,  // some part of it fits, as in JSON Schema; ^ and $ bind it to the text's ends
};
// Throws BadInput saying what and at which byte.
Regex parse_regex(std::string_view pattern, RegexUse use);

bool may_be_empty(const Regex& regex);
// Characters of the shortest and the longest text; -1: there is no longest.
int64_t shortest(const Regex& regex);
int64_t longest(const Regex& regex);

// How characters are written: as UTF-8, or as JSON writes them inside a string.
using Writer = std::function<Grammar::Symbol(Grammar& grammar, const CodePoints& set)>;
Grammar::Symbol add_regex(Grammar& grammar, const Regex& regex, const Writer& write);

// A deterministic automaton for texts that fit every one of `all` and have `least` to `most`
// characters (most -1: any number).
class TextAutomaton {
 public:
  // Throws BadInput when it needs more than `max_states`.
  TextAutomaton(std::span<const Regex> all, int64_t least, int64_t most, size_t max_states);

  bool fits(std::string_view text) const;
  bool is_empty() const;  // nothing fits
  Grammar::Symbol add_to(Grammar& grammar, const Writer& write) const;

 private:
  struct Edge {
    CodePoints set;
    uint32_t to;
  };
  struct State {
    std::vector<Edge> edges;
    bool accepts = false;
  };
  std::vector<State> states_;  // the first is the start
};

}  // namespace quern
