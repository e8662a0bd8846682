#include "grammar/json_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/utf8.h"
#include "grammar/notation.h"

namespace quern {
namespace {

using Symbol = Grammar::Symbol;
using Sequence = Grammar::Sequence;

void append(Sequence& out, const Sequence& more) {
  out.insert(out.end(), more.begin(), more.end());
}

// What a string may hold as it is.
CodePoints plain_characters() { return Grammar::complement({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}); }

CodePoints common(const CodePoints& a, const CodePoints& b) {
  CodePoints out;
  for (const auto& [first, last] : a) {
    for (const auto& [from, to] : b) {
      if (std::max(first, from) <= std::min(last, to)) {
        out.emplace_back(std::max(first, from), std::min(last, to));
      }
    }
  }
  return out;
}

}  // namespace

Symbol JsonText::one_of(const std::vector<Sequence>& list) {
  const uint32_t rule = g_.new_rule();
  for (const Sequence& sequence : list) g_.add(rule, sequence);
  return Grammar::of_rule(rule);
}

Symbol JsonText::between(const std::string& open, const Sequence& what, const std::string& close) {
  Sequence out = g_.literal(open);
  append(out, what);
  append(out, g_.literal(close));
  return one_of({out});
}

Symbol JsonText::space() {
  if (!space_) space_ = one_of({{}, g_.literal(" ")});
  return *space_;
}

Sequence JsonText::comma() {
  Sequence out = g_.literal(",");
  out.push_back(space());
  return out;
}

Symbol JsonText::character() {
  if (character_) return *character_;
  const auto range = [&](const CodePoints& ranges) { return g_.characters(ranges); };
  const Symbol hex = range({{'0', '9'}, {'a', 'f'}, {'A', 'F'}});
  // No surrogates: half a pair is no character.
  const Symbol not_d = range({{'0', '9'}, {'a', 'c'}, {'e', 'f'}, {'A', 'C'}, {'E', 'F'}});
  Sequence simple = g_.literal("\\"), plain = g_.literal("\\u"), low = g_.literal("\\u");
  append(simple, {range({{'"', '"'},
                         {'\\', '\\'},
                         {'/', '/'},
                         {'b', 'b'},
                         {'f', 'f'},
                         {'n', 'n'},
                         {'r', 'r'},
                         {'t', 't'}})});
  append(plain, {not_d, hex, hex, hex});
  append(low, {range({{'d', 'd'}, {'D', 'D'}}), range({{'0', '7'}}), hex, hex});
  character_ = one_of({{range(plain_characters())}, simple, plain, low});
  return *character_;
}

Symbol JsonText::write(Grammar& grammar, const CodePoints& set) {
  const CodePoints plain = common(set, plain_characters());
  const CodePoints escaped = common(set, {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}});
  if (escaped.empty()) return grammar.characters(plain);
  const uint32_t rule = grammar.new_rule();
  if (!plain.empty()) grammar.add(rule, {grammar.characters(plain)});
  for (const auto& [first, last] : escaped) {
    for (uint32_t point = first; point <= last; ++point) {
      constexpr std::string_view kNames = "btnvfr";  // from 8 on; \v is none of JSON's
      std::string text;
      if (point == '"' || point == '\\') {
        text = std::string("\\") + static_cast<char>(point);
      } else if (point >= 8 && point <= 13 && point != 11) {
        text = std::string("\\") + kNames[point - 8];
      } else {
        text = fmt::format("\\u{:04x}", point);
      }
      grammar.add(rule, grammar.literal(text));
    }
  }
  return Grammar::of_rule(rule);
}

Symbol JsonText::string(int64_t least, int64_t most) {
  if (least == 0 && most < 0 && string_) return *string_;
  const Symbol made = between("\"", {g_.repeat({character()}, least, most)}, "\"");
  if (least == 0 && most < 0) string_ = made;
  return made;
}

Symbol JsonText::string_of(const Regex& regex) {
  return between("\"", {add_regex(g_, regex, write)}, "\"");
}

Symbol JsonText::string_of(const TextAutomaton& automaton) {
  return between("\"", {automaton.add_to(g_, write)}, "\"");
}

// A tree of the names: on each of its nodes one goes on with another character, or ends where no
// name does. Names are written without escapes, so that none of them is met in another spelling.
Symbol JsonText::name_beside(const std::vector<std::string>& names) {
  struct Node {
    std::map<uint32_t, size_t> next;
    bool ends = false;
  };
  std::vector<Node> nodes(1);
  for (std::string_view name : names) {
    size_t at = 0;
    while (!name.empty()) {
      const utf8::Point point = utf8::decode(name);
      name.remove_prefix(point.length);
      const auto [found, added] = nodes[at].next.try_emplace(point.value, nodes.size());
      at = found->second;
      if (added) nodes.emplace_back();
    }
    nodes[at].ends = true;
  }
  const Symbol others = g_.repeat({g_.characters(plain_characters())}, 0, -1);
  std::vector<uint32_t> rules;
  for (size_t i = 0; i < nodes.size(); ++i) rules.push_back(g_.new_rule());
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (!nodes[i].ends) g_.add(rules[i], {});
    CodePoints taken;
    for (const auto& [point, next] : nodes[i].next) {
      taken.emplace_back(point, point);
      const CodePoints plain = common({{point, point}}, plain_characters());
      if (!plain.empty()) g_.add(rules[i], {g_.characters(plain), Grammar::of_rule(rules[next])});
    }
    g_.add(rules[i],
           {g_.characters(common(plain_characters(), Grammar::complement(taken))), others});
  }
  return between("\"", {Grammar::of_rule(rules[0])}, "\"");
}

Symbol JsonText::integer() {
  if (integer_) return *integer_;
  const Symbol digit = g_.characters({{'0', '9'}});
  const Symbol minus = one_of({{}, g_.literal("-")});
  // Within 2^53, so that readers with doubles get the same number.
  const Symbol big = one_of({{g_.characters({{'1', '9'}}), g_.repeat({digit}, 0, 14)}});
  integer_ = one_of({{minus, big}, g_.literal("0")});
  return *integer_;
}

Symbol JsonText::number() {
  if (number_) return *number_;
  const Symbol digit = g_.characters({{'0', '9'}});
  Sequence fraction = g_.literal(".");
  fraction.push_back(g_.repeat({digit}, 1, 15));
  // Two digits of exponent: no double overflows.
  const Sequence exponent = {g_.characters({{'e', 'e'}, {'E', 'E'}}),
                             one_of({{}, g_.literal("+"), g_.literal("-")}),
                             g_.repeat({digit}, 1, 2)};
  const Symbol whole =
      one_of({{g_.characters({{'1', '9'}}), g_.repeat({digit}, 0, 14)}, g_.literal("0")});
  number_ = one_of(
      {{one_of({{}, g_.literal("-")}), whole, one_of({{}, fraction}), one_of({{}, exponent})}});
  return *number_;
}

Sequence JsonText::member(Symbol name, Symbol value) {
  Sequence out = {name};
  append(out, g_.literal(":"));
  append(out, {space(), value});
  return out;
}

Symbol JsonText::any() {
  if (any_) return *any_;
  const uint32_t rule = g_.new_rule(), object = g_.new_rule();
  any_ = Grammar::of_rule(rule);
  object_ = Grammar::of_rule(object);
  g_.add(object, {between("{", {list_of(member(string(0, -1), *any_), 0, -1)}, "}")});
  g_.add(rule, {string(0, -1)});
  g_.add(rule, {number()});
  g_.add(rule, {*object_});
  g_.add(rule, {between("[", {list_of({*any_}, 0, -1)}, "]")});
  for (const char* word : {"true", "false", "null"}) g_.add(rule, g_.literal(word));
  return *any_;
}

Symbol JsonText::any_object() {
  any();
  return *object_;
}

Symbol JsonText::list_of(const Sequence& item, int64_t least, int64_t most) {
  if (most == 0) return one_of({{}});
  Sequence next = comma();
  append(next, item);
  Sequence some = item;
  some.push_back(g_.repeat(next, std::max<int64_t>(least - 1, 0), most < 0 ? -1 : most - 1));
  return least > 0 ? one_of({some}) : one_of({{}, some});
}

}  // namespace quern
