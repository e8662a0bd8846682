// The pieces that JSON texts are made of, as symbols of a grammar. Inside grammar/.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "grammar/grammar.h"
#include "grammar/regex.h"

namespace quern {

class JsonText {
 public:
  using Symbol = Grammar::Symbol;
  using Sequence = Grammar::Sequence;

  explicit JsonText(Grammar& grammar) : g_(grammar) {}

  Symbol one_of(const std::vector<Sequence>& list);
  Symbol space();    // one or none
  Sequence comma();  // and a space
  Symbol string(int64_t least, int64_t most);
  Symbol string_of(const Regex& regex);
  Symbol string_of(const TextAutomaton& automaton);
  // A member's name that is none of `names`.
  Symbol name_beside(const std::vector<std::string>& names);
  Symbol integer();  // of at most 15 digits
  Symbol number();
  Symbol any();
  Symbol any_object();
  // `least` to `most` items with commas between; most -1: any number.
  Symbol list_of(const Sequence& item, int64_t least, int64_t most);
  Sequence member(Symbol name, Symbol value);

  // A character as it stands inside a string; what must be escaped is.
  static Symbol write(Grammar& grammar, const CodePoints& set);

 private:
  Symbol character();
  Symbol between(const std::string& open, const Sequence& what, const std::string& close);

  Grammar& g_;
  std::optional<Symbol> space_, character_, string_, integer_, number_, any_, object_;
};

}  // namespace quern
