// Expressions of a parsed template, evaluated.
#include <fmt/format.h>

#include "text/template/builtins.h"
#include "text/template/interpreter.h"

namespace quern::chat_template {
namespace {

using EK = Expression::Kind;

}  // namespace

Value Interpreter::evaluate_or_none(const ExpressionPointer& expression) {
  return expression ? evaluate(*expression) : Value(None{});
}

Arguments Interpreter::arguments(const CallArguments& given) {
  Arguments out;
  for (const auto& argument : given.positional) out.positional.push_back(evaluate(*argument));
  for (const auto& [name, argument] : given.named)
    out.named.emplace_back(name, evaluate(*argument));
  if (given.star) {
    for (const auto all = iterate(evaluate(*given.star)); const Value& item : all->items)
      out.positional.push_back(item);
  }
  if (given.star_star) {
    const Value all = evaluate(*given.star_star);
    const Dict* dict = all.as_dict();
    if (dict == nullptr) fail_type("argument after ** must be a mapping");
    for (const auto& [name, value] : dict->members) {
      const MarkedText* text = name.as_text();
      if (text == nullptr) fail_type("keywords must be strings");
      out.named.emplace_back(std::string(text->bytes()), value);
    }
  }
  spend(out.positional.size() + out.named.size());
  return out;
}

Value Interpreter::evaluate(const Expression& e) {
  spend(1);
  const Nesting nesting(*this);
  switch (e.kind) {
    case EK::Constant:
      return e.constant;
    case EK::Name:
      return lookup(e.id);
    case EK::List:
    case EK::Tuple: {
      std::vector<Value> items;
      items.reserve(e.items.size());
      for (const auto& item : e.items) items.push_back(evaluate(*item));
      return make_list(std::move(items),
                       e.kind == EK::List ? Sequence::Kind::List : Sequence::Kind::Tuple);
    }
    case EK::Dict: {
      auto dict = std::make_shared<Dict>();
      for (size_t i = 0; i < e.items.size(); i += 2) {
        const Value key = evaluate(*e.items[i]);
        need_hashable(key);
        set(*dict, key, evaluate(*e.items[i + 1]));
      }
      value_depth(dict->depth);
      return DictPointer(std::move(dict));
    }
    case EK::Unary:
      return unary(e.op, evaluate(*e.items[0]));
    case EK::Binary: {
      const Value left = evaluate(*e.items[0]);
      return binary(e.op, left, evaluate(*e.items[1]));
    }
    case EK::And: {
      Value left = evaluate(*e.items[0]);
      return left.truthy() ? evaluate(*e.items[1]) : left;
    }
    case EK::Or: {
      Value left = evaluate(*e.items[0]);
      return left.truthy() ? left : evaluate(*e.items[1]);
    }
    case EK::Compare:
      return compare(e);
    case EK::Concat: {
      MarkedText text;
      for (const auto& item : e.items) {
        const Value value = evaluate(*item);
        spend(value.weight());
        append_str(text, value);
      }
      return make_text(std::move(text));
    }
    case EK::Choice:
      if (evaluate(*e.items[1]).truthy()) return evaluate(*e.items[0]);
      if (e.items[2]) return evaluate(*e.items[2]);
      return undefined(
          fmt::format("the inline if-expression on line {} evaluated to false and no "
                      "else section was defined.",
                      e.line));
    case EK::Member:
      return member(evaluate(*e.items[0]), e.name);
    case EK::Item: {
      const Value object = evaluate(*e.items[0]);
      return item(object, evaluate(*e.items[1]));
    }
    case EK::Slice: {
      const Value object = evaluate(*e.items[0]);
      const Value begin = evaluate_or_none(e.items[1]), end = evaluate_or_none(e.items[2]);
      return slice(object, begin, end, evaluate_or_none(e.items[3]));
    }
    case EK::Call: {
      const Value callee = evaluate(*e.items[0]);
      return call(callee, arguments(e.arguments));
    }
    case EK::Filter: {
      const Value input = evaluate(*e.items[0]);
      return call_filter(*this, e.name, input, arguments(e.arguments));
    }
    case EK::Test: {
      const Value input = evaluate(*e.items[0]);
      return call_test(*this, e.name, input, arguments(e.arguments));
    }
  }
  return None{};
}

Value Interpreter::filtered(const Expression* chain, const Value& input) {
  const Nesting nesting(*this);
  const Value inner = chain->items[0] ? filtered(chain->items[0].get(), input) : input;
  return call_filter(*this, chain->name, inner, arguments(chain->arguments));
}

Value Interpreter::compare(const Expression& e) {
  Value left = evaluate(*e.items[0]);
  for (size_t i = 0; i < e.ops.size(); ++i) {
    Value right = evaluate(*e.items[i + 1]);
    spend(1);
    if (!compare(e.ops[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

}  // namespace quern::chat_template
