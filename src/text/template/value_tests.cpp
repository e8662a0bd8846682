#include <fmt/format.h>

#include <unordered_map>

#include "text/template/builtins.h"
#include "text/template/interpreter.h"
#include "text/template/python_text.h"

namespace quern::chat_template {
namespace {

using Test = bool (*)(Interpreter&, const Value&, const Arguments&);

const Value& argument(const Arguments& given, const char* test) {
  if (given.positional.size() != 1 || !given.named.empty()) {
    fail_type(fmt::format("the test '{}' takes one argument, got {}", test,
                          given.positional.size() + given.named.size()));
  }
  return given.positional[0];
}

int64_t whole(Interpreter& run, const Value& value, int64_t divisor) {
  const Value rest = run.binary(Operator::Modulo, value, divisor);
  if (const auto number = rest.as_integer()) return *number;
  const auto* real = rest.as<double>();
  return real != nullptr && *real == 0 ? 0 : 1;
}

bool less(Interpreter& run, const Value& value, const Arguments& given) {
  return run.less(value, argument(given, "lt"));
}
bool greater(Interpreter& run, const Value& value, const Arguments& given) {
  return run.less(argument(given, "gt"), value);
}
bool at_most(Interpreter& run, const Value& value, const Arguments& given) {
  return !run.less(argument(given, "le"), value);
}
bool at_least(Interpreter& run, const Value& value, const Arguments& given) {
  return !run.less(value, argument(given, "ge"));
}
bool same(Interpreter& run, const Value& value, const Arguments& given) {
  return run.same(value, argument(given, "eq"));
}
bool different(Interpreter& run, const Value& value, const Arguments& given) {
  return !run.same(value, argument(given, "ne"));
}

bool is_sequence(const Value& value) {
  if (value.as_text() != nullptr || value.as_dict() != nullptr || value.is_undefined()) return true;
  // What has a length and can be asked for an item.
  const Sequence* list = value.as_sequence();
  return list != nullptr && list->kind <= Sequence::Kind::Range;
}

bool is_iterable(const Value& value) {
  return value.as_text() != nullptr || value.as_dict() != nullptr || value.is_undefined() ||
         value.as_sequence() != nullptr;
}

bool same_object(const Value& a, const Value& b) {
  if (a.data().index() != b.data().index()) return false;
  if (a.as_sequence() != nullptr) return a.as_sequence() == b.as_sequence();
  if (a.as_dict() != nullptr) return a.as_dict() == b.as_dict();
  return a.weight() <= 1000 && equal(a, b);
}

const std::unordered_map<std::string_view, Test>& tests() {
  using R = Interpreter&;
  using V = const Value&;
  using A = const Arguments&;
  static const std::unordered_map<std::string_view, Test> kTests = {
      {"!=", different},
      {"<", less},
      {"<=", at_most},
      {"==", same},
      {">", greater},
      {">=", at_least},
      {"boolean", [](R, V value, A) { return value.as<bool>() != nullptr; }},
      {"callable",
       [](R, V value, A) {
         // An undefined value can be called, to an error.
         return (value.as_function() != nullptr && value.as_function()->call != nullptr) ||
                value.is_undefined();
       }},
      {"defined", [](R, V value, A) { return !value.is_undefined(); }},
      {"divisibleby",
       [](R run, V value, A given) {
         const auto by = argument(given, "divisibleby").as_integer();
         if (!by) fail_type("the test 'divisibleby' takes an integer");
         return whole(run, value, *by) == 0;
       }},
      {"eq", same},
      {"equalto", same},
      {"escaped", [](R, V, A) { return false; }},
      {"even", [](R run, V value, A) { return whole(run, value, 2) == 0; }},
      {"false", [](R, V value, A) { return value.as<bool>() != nullptr && !*value.as<bool>(); }},
      {"filter",
       [](R, V value, A) {
         return value.as_text() != nullptr && has_filter(value.as_text()->bytes());
       }},
      {"float", [](R, V value, A) { return value.as<double>() != nullptr; }},
      {"ge", at_least},
      {"greaterthan", greater},
      {"gt", greater},
      {"in", [](R run, V value, A given) { return run.contains(argument(given, "in"), value); }},
      {"integer",
       [](R, V value, A) {
         return value.as<int64_t>() != nullptr || value.as<BigInteger>() != nullptr;
       }},
      {"iterable", [](R, V value, A) { return is_iterable(value); }},
      {"le", at_most},
      {"lessthan", less},
      {"lower", [](R run, V value, A) { return is_lower(run.str(value).bytes()); }},
      {"lt", less},
      {"mapping", [](R, V value, A) { return value.as_dict() != nullptr; }},
      {"ne", different},
      {"none", [](R, V value, A) { return value.is_none(); }},
      {"number", [](R, V value, A) { return value.is_number(); }},
      {"odd", [](R run, V value, A) { return whole(run, value, 2) == 1; }},
      {"sameas", [](R, V value, A given) { return same_object(value, argument(given, "sameas")); }},
      {"sequence", [](R, V value, A) { return is_sequence(value); }},
      {"string", [](R, V value, A) { return value.as_text() != nullptr; }},
      {"test", [](R, V value,
                  A) { return value.as_text() != nullptr && has_test(value.as_text()->bytes()); }},
      {"true", [](R, V value, A) { return value.as<bool>() != nullptr && *value.as<bool>(); }},
      {"undefined", [](R, V value, A) { return value.is_undefined(); }},
      {"upper", [](R run, V value, A) { return is_upper(run.str(value).bytes()); }},
  };
  return kTests;
}

}  // namespace

bool has_test(std::string_view name) { return tests().contains(name); }

bool call_test(Interpreter& run, std::string_view name, const Value& input,
               const Arguments& arguments) {
  run.spend(1);
  return tests().at(name)(run, input, arguments);
}

}  // namespace quern::chat_template
