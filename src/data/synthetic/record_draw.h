// One record in the making: what its names stand for, drawn when first asked for.
#pragma once

#include "data/synthetic/text_grammar.h"

namespace quern {

class RecordDraw {
 public:
  RecordDraw(const TextGrammar& grammar, uint64_t seed, uint64_t index, uint64_t attempt);

  // `value` with all its slots filled.
  nlohmann::ordered_json filled(const nlohmann::ordered_json& value);

 private:
  using Value = nlohmann::ordered_json;

  // Streams of their own for each name: a rule that is added changes no other name's draw.
  Rng stream(std::string_view name) const;
  Value binding(const std::string& name, const Binding& binding);
  Value several(const Binding& binding, Rng& rng);
  std::string each(const Binding& binding);
  // What a name stands for: bound once, or drawn anew from a list or rule.
  Value named(const std::string& name);
  Value at(const std::vector<std::string>& path);
  const Value& draw(const std::vector<Value>& list);
  std::string text_of(const Value& value, const std::vector<std::string>& filters);
  std::string expand(const std::string& text);
  std::string expand_rule(const std::string& name);
  double number(const std::string& expression);
  bool holds(const std::string& condition);
  bool holds_for(const Value& item, const std::string& condition);  // with `item` as this value
  bool compare(std::string_view condition);
  std::string side(std::string_view expression);  // of a comparison, as a text
  [[noreturn]] void fail(const std::string& problem, const std::string& hint = {}) const;

  const TextGrammar& grammar_;
  uint64_t seed_, index_, attempt_;
  Rng rng_;
  std::map<std::string, Value> bound_;
  std::set<std::string> in_progress_;
  const Value* item_ = nullptr;
  int depth_ = 0;
  size_t bytes_ = 0;
};

}  // namespace quern
