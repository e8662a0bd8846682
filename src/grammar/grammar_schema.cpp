// Grammars of JSON: any object, or what a JSON Schema describes.
//
// Every text of the grammar is valid by the schema; not every valid text is in it: members come in
// the schema's order, an object with properties has others only where the schema describes them,
// spaces are few. A keyword whose meaning could not be kept to is refused.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "grammar/grammar.h"
#include "grammar/json_text.h"
#include "grammar/schema.h"

namespace quern {
namespace {

using nlohmann::ordered_json;
using Symbol = Grammar::Symbol;
using Sequence = Grammar::Sequence;

constexpr size_t kMaxTextStates = 12'000;  // of a string with several rules

void append(Sequence& out, const Sequence& more) {
  out.insert(out.end(), more.begin(), more.end());
}

Grammar finish(Grammar grammar, Symbol root) {
  const uint32_t rule = grammar.new_rule();
  grammar.add(rule, {root});
  grammar.finish(rule);
  return grammar;
}

class SchemaCompiler {
 public:
  SchemaCompiler(Grammar& grammar, const ordered_json& schema)
      : schemas_(schema), g_(grammar), text_(grammar) {}

  Symbol compile() { return value(schemas_.root(), 0); }

 private:
  // What holds the same schemas is the same rule: schemas that refer to themselves end here.
  Symbol value(const SchemaList& list, int depth) {
    if (depth > kMaxNesting) schemas_.fail(list, "is nested too deeply");
    SchemaList key = list;
    std::sort(key.begin(), key.end());
    if (const auto known = rules_.find(key); known != rules_.end()) {
      return Grammar::of_rule(known->second);
    }
    const uint32_t rule = g_.new_rule();
    rules_[key] = rule;
    for (const Symbol& way : ways(list, depth)) g_.add(rule, {way});
    return Grammar::of_rule(rule);
  }

  std::vector<Symbol> ways(const SchemaList& list, int depth) {
    std::vector<Symbol> out;
    bool exclusive = false;
    if (const auto options = schemas_.alternatives(list, exclusive); !options.empty()) {
      if (exclusive) check_apart(list, options);
      for (const SchemaList& option : options) out.push_back(value(option, depth + 1));
      return out;
    }
    const Shape shape = schemas_.shape(list);
    if (shape.values) return {constants(list, *shape.values)};
    if (shape.says_nothing) return {text_.any()};
    const auto literal = [&](const char* word) { return text_.one_of({g_.literal(word)}); };
    if (shape.written & kNull) out.push_back(literal("null"));
    if (shape.written & kBoolean) {
      out.push_back(text_.one_of({g_.literal("true"), g_.literal("false")}));
    }
    if (shape.written & kNumber) out.push_back(number(list, shape));
    if (shape.written & kString) out.push_back(string(list, shape));
    if (shape.written & kArray) out.push_back(array(list, shape, depth));
    if (shape.written & kObject) out.push_back(object(list, shape, depth));
    return out;
  }

  // Whatever is written by one of them must fit no other.
  void check_apart(const SchemaList& list, const std::vector<SchemaList>& options) {
    for (size_t i = 0; i < options.size(); ++i) {
      for (size_t j = 0; j < options.size(); ++j) {
        if (i == j || schemas_.are_apart(options[i], options[j])) continue;
        schemas_.fail(list,
                      fmt::format("oneOf cannot be kept to here: a value of option {} may fit "
                                  "option {}, too; anyOf takes both",
                                  i, j));
      }
    }
  }

  Symbol constants(const SchemaList& list, const std::vector<const ordered_json*>& values) {
    std::vector<Sequence> texts;
    for (const ordered_json* item : values) {
      if (schemas_.fits(*item, list)) texts.push_back(g_.literal(dump(*item)));
    }
    if (texts.empty()) schemas_.fail(list, "enum or const: no value fits");
    return text_.one_of(texts);
  }

  Symbol number(const SchemaList& list, const Shape& shape) {
    const bool integers = (shape.written & kFraction) == 0;
    if (!shape.numbers.any()) return integers ? text_.integer() : text_.number();
    try {
      return numbers_within(g_, shape.numbers, integers);
    } catch (const Error& problem) {
      schemas_.fail(list, problem.what());
    }
  }

  Symbol string(const SchemaList& list, const Shape& shape) {
    if (shape.texts.empty()) return text_.string(shape.least_length, shape.most_length);
    // A rule that no text could break needs no automaton.
    int64_t least = shape.least_length, most = shape.most_length;
    for (const Regex& regex : shape.texts) {
      if (shortest(regex) >= least) least = 0;
      const int64_t end = longest(regex);
      if (end >= 0 && end <= most) most = -1;
    }
    if (shape.texts.size() == 1 && least == 0 && most < 0) return text_.string_of(shape.texts[0]);
    try {
      const TextAutomaton automaton(shape.texts, least, most, kMaxTextStates);
      if (automaton.is_empty()) throw_bad_input("no text fits");
      return text_.string_of(automaton);
    } catch (const Error& problem) {
      schemas_.fail(list, fmt::format("pattern or format with its other rules cannot be kept to "
                                      "here: {}",
                                      problem.what()));
    }
  }

  Symbol array(const SchemaList& list, const Shape& shape, int depth) {
    const ArrayParts parts = schemas_.array_parts(list);
    const auto listed = static_cast<int64_t>(parts.first.size());
    int64_t least = shape.least_items, most = shape.most_items;
    if (!parts.others || (listed > 0 && !parts.others_named && least <= listed)) {
      most = most < 0 ? listed : std::min(most, listed);
    }
    if (most >= 0 && least > most)
      schemas_.fail(list, "minItems asks for items that may not be there");
    if (shape.unique_items && (most < 0 || most > 1)) {
      schemas_.fail(list, "'uniqueItems' cannot be kept to here");
    }
    // From the last listed item back: what may follow it.
    const int64_t written = most < 0 ? listed : std::min(listed, most);
    Symbol after = text_.one_of({{}});
    if (most < 0 || most > listed) {
      const Symbol item = value(*parts.others, depth + 1);
      const int64_t fewest = std::max<int64_t>(least - listed, 0);
      const int64_t largest = most < 0 ? -1 : most - listed;
      if (listed == 0) {
        after = text_.list_of({item}, fewest, largest);
      } else {
        Sequence next = text_.comma();
        next.push_back(item);
        after = g_.repeat(next, fewest, largest);
      }
    }
    for (int64_t i = written; i-- > 0;) {
      Sequence item = i > 0 ? text_.comma() : Sequence();
      item.push_back(value(parts.first[static_cast<size_t>(i)], depth + 1));
      item.push_back(after);
      std::vector<Sequence> options = {item};
      if (i >= least) options.push_back({});
      after = text_.one_of(options);
    }
    Sequence out = g_.literal("[");
    out.push_back(after);
    append(out, g_.literal("]"));
    return text_.one_of({out});
  }

  Symbol object(const SchemaList& list, const Shape& shape, int depth) {
    const ObjectParts parts = schemas_.object_parts(list);
    const auto& members = parts.members;
    const auto total = static_cast<int64_t>(members.size());
    const int64_t needed = std::ranges::count_if(members, &ObjectParts::Member::required);
    const int64_t least = shape.least_members, most = shape.most_members;
    if (most >= 0 && needed > most)
      schemas_.fail(list, "maxProperties is less than what is required");
    if (!parts.others && least > total) {
      schemas_.fail(list, "minProperties asks for members that may not be there");
    }
    // Names of its own may come twice, which counts once: they are sure of one member alone.
    if (parts.others && least > needed + (needed == 0 && total == 0 ? 1 : 0)) {
      schemas_.fail(list, "minProperties above the required ones cannot be kept to here");
    }
    std::vector<Symbol> texts;
    std::vector<std::string> names;
    for (const auto& member : members) {
      const Symbol name = text_.one_of({g_.literal(dump(ordered_json(member.name)))});
      texts.push_back(text_.one_of({text_.member(name, value(member.schema, depth + 1))}));
      names.push_back(member.name);
    }
    // What may follow when `count` members have come, from the last member back. Counts beyond the
    // last that matters are one.
    const int64_t last_count = std::max<int64_t>({1, least, most < 0 ? 0 : most});
    const auto after_all = [&](int64_t count) {
      std::vector<Sequence> options;
      if (count >= least || parts.others) {
        if (count >= least) options.push_back({});
        const int64_t room = most < 0 ? -1 : most - count;
        if (parts.others && room != 0) {
          const Symbol item = text_.one_of(
              {text_.member(names.empty() ? text_.string(0, -1) : text_.name_beside(names),
                            value(*parts.others, depth + 1))});
          Sequence some = count > 0 ? text_.comma() : Sequence();
          some.push_back(text_.list_of({item}, 1, room));
          options.push_back(some);
        }
      }
      return text_.one_of(options);
    };
    std::vector<Symbol> after;
    for (int64_t count = 0; count <= std::min(last_count, total); ++count) {
      after.push_back(after_all(count));
    }
    for (size_t i = members.size(); i-- > 0;) {
      const int64_t before = std::min<int64_t>(static_cast<int64_t>(i), last_count);
      std::vector<Symbol> now;
      for (int64_t count = 0; count <= before; ++count) {
        std::vector<Sequence> options;
        if (most < 0 || count < most) {
          Sequence with = count > 0 ? text_.comma() : Sequence();
          append(with, {texts[i], after[static_cast<size_t>(std::min(count + 1, last_count))]});
          options.push_back(with);
        }
        if (!members[i].required) options.push_back({after[static_cast<size_t>(count)]});
        now.push_back(text_.one_of(options));
      }
      after = std::move(now);
    }
    Sequence out = g_.literal("{");
    out.push_back(after[0]);
    append(out, g_.literal("}"));
    return text_.one_of({out});
  }

  Schemas schemas_;
  Grammar& g_;
  JsonText text_;
  std::map<SchemaList, uint32_t> rules_;
};

}  // namespace

Symbol add_schema(Grammar& grammar, const ordered_json& schema) {
  if (schema.dump().size() > kMaxGrammarBytes) {
    throw_bad_input(fmt::format("the schema has more than {} bytes", kMaxGrammarBytes));
  }
  return SchemaCompiler(grammar, schema).compile();
}

Symbol add_json_object(Grammar& grammar) { return JsonText(grammar).any_object(); }

Grammar grammar_from_schema(const ordered_json& schema) {
  Grammar grammar;
  const Symbol root = add_schema(grammar, schema);
  return finish(std::move(grammar), root);
}

bool fits_schema(const ordered_json& schema, const ordered_json& value) {
  Schemas schemas(schema);
  return schemas.fits(value, schemas.root());
}

Grammar grammar_of_json_object() {
  Grammar grammar;
  const Symbol root = add_json_object(grammar);
  return finish(std::move(grammar), root);
}

}  // namespace quern
