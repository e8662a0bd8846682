// What Python's operators, indexing, iteration and calls do with values.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/utf8.h"
#include "text/template/builtins.h"
#include "text/template/interpreter.h"
#include "text/template/python_text.h"

namespace quern::chat_template {
namespace {

using Cause = TemplateError::Cause;

std::string repr_of(const Value& value) {
  if (value.weight() > 1000) return "a " + value.type_name();
  MarkedText out;
  append_repr(out, value);
  return std::string(out.bytes());
}

std::string type_in_words(const Value& object) {
  return object.is_none() ? "None" : object.type_name() + " object";
}

Value missing_member(const Value& object, std::string_view name) {
  return undefined(fmt::format("'{}' has no attribute '{}'", type_in_words(object), name));
}

Value unsafe_member(const Value& object, std::string_view name) {
  return undefined(
      fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, object.type_name()),
      true);
}

// Bounds of a slice as Python's slice.indices.
struct SliceBounds {
  int64_t begin, end, step;
};

std::optional<int64_t> slice_bound(const Value& value) {
  if (value.is_none()) return std::nullopt;
  const auto whole = value.as_integer();
  if (!whole) {
    Interpreter::need_defined(value);
    fail_type("slice indices must be integers or None or have an __index__ method");
  }
  return whole;
}

SliceBounds slice_bounds(const Value& begin, const Value& end, const Value& step, int64_t length) {
  const int64_t by = slice_bound(step).value_or(1);
  if (by == 0) fail_value("slice step cannot be zero");
  const int64_t low = by < 0 ? -1 : 0, high = by < 0 ? length - 1 : length;
  const auto clamped = [&](const Value& value, int64_t fallback) {
    const auto given = slice_bound(value);
    if (!given) return fallback;
    return *given < 0 ? std::max(*given < -length ? low : *given + length, low)
                      : std::min(*given, high);
  };
  // A longer step than the whole takes one item, too; and it cannot overflow.
  return {clamped(begin, by < 0 ? high : low), clamped(end, by < 0 ? low : high),
          std::clamp(by, -length - 1, length + 1)};
}

int64_t overflow() { fail_overflow(); }

int64_t floor_divide(int64_t a, int64_t b) {
  if (b == -1) return a == INT64_MIN ? overflow() : -a;
  return a / b - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
}

int64_t modulo(int64_t a, int64_t b) {
  if (b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

Value integer_power(int64_t base, int64_t power) {
  if (power < 0) {
    if (base == 0) {
      throw TemplateError(Cause::Other, "0.0 cannot be raised to a negative power",
                          "ZeroDivisionError");
    }
    return std::pow(static_cast<double>(base), static_cast<double>(power));
  }
  int64_t result = 1;
  if (base == 0 || base == 1) return power == 0 ? int64_t{1} : base;
  if (base == -1) return power % 2 == 0 ? int64_t{1} : int64_t{-1};
  for (; power > 0; --power) {
    if (__builtin_mul_overflow(result, base, &result)) overflow();
  }
  return result;
}

const char* symbol(Operator op) {
  constexpr const char* kSymbols[] = {"+",           "-",  "*",      "/", "//", "%",
                                      "** or pow()", "==", "!=",     "<", "<=", ">",
                                      ">=",          "in", "not in", "-", "+",  "not"};
  return kSymbols[static_cast<size_t>(op)];
}

}  // namespace

Value Interpreter::unary(Operator op, const Value& value) {
  if (op == Operator::Not) return !value.truthy();
  need_defined(value);
  const bool negative = op == Operator::Negative;
  if (const auto* number = value.as<double>()) return negative ? -*number : *number;
  if (const auto whole = value.as_integer()) {
    if (negative && *whole == INT64_MIN) overflow();
    return negative ? -*whole : *whole;
  }
  fail_type(fmt::format("bad operand type for unary {}: '{}'", symbol(op), value.type_name()));
}

Value Interpreter::binary(Operator op, const Value& a, const Value& b) {
  need_defined(a);
  need_defined(b);
  const auto whole_a = a.as_integer(), whole_b = b.as_integer();
  const auto zero = [](const char* problem) {
    throw TemplateError(Cause::Other, problem, "ZeroDivisionError");
  };
  if (op == Operator::Modulo && a.as_text() != nullptr) {
    return make_text(format_percent(*this, *a.as_text(), b));
  }
  if (whole_a && whole_b) {
    int64_t result = 0;
    switch (op) {
      case Operator::Add:
        return __builtin_add_overflow(*whole_a, *whole_b, &result) ? overflow() : result;
      case Operator::Subtract:
        return __builtin_sub_overflow(*whole_a, *whole_b, &result) ? overflow() : result;
      case Operator::Multiply:
        return __builtin_mul_overflow(*whole_a, *whole_b, &result) ? overflow() : result;
      case Operator::Divide:
        if (*whole_b == 0) zero("division by zero");
        return static_cast<double>(*whole_a) / static_cast<double>(*whole_b);
      case Operator::FloorDivide:
      case Operator::Modulo:
        if (*whole_b == 0) zero("integer division or modulo by zero");
        return op == Operator::Modulo ? modulo(*whole_a, *whole_b)
                                      : floor_divide(*whole_a, *whole_b);
      case Operator::Power:
        return integer_power(*whole_a, *whole_b);
      default:
        break;
    }
  }
  if (a.is_number() && b.is_number()) {
    if (a.as<BigInteger>() != nullptr || b.as<BigInteger>() != nullptr) overflow();
    const double x = a.as_double(), y = b.as_double();
    switch (op) {
      case Operator::Add:
        return x + y;
      case Operator::Subtract:
        return x - y;
      case Operator::Multiply:
        return x * y;
      case Operator::Divide:
        if (y == 0) zero("float division by zero");
        return x / y;
      case Operator::FloorDivide:
        if (y == 0) zero("float floor division by zero");
        return std::floor(x / y);
      case Operator::Modulo: {
        if (y == 0) zero("float modulo");
        const double rest = std::fmod(x, y);
        return rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest;
      }
      case Operator::Power:
        if (x == 0 && y < 0) zero("0.0 cannot be raised to a negative power");
        return std::pow(x, y);
      default:
        break;
    }
  }
  const MarkedText *text_a = a.as_text(), *text_b = b.as_text();
  const Sequence *list_a = a.as_sequence(), *list_b = b.as_sequence();
  const auto joins = [](const Sequence* list) {
    return list != nullptr && list->kind <= Sequence::Kind::Tuple;
  };
  if (op == Operator::Add) {
    if (text_a != nullptr && text_b != nullptr) {
      spend_bytes(text_a->size() + text_b->size());
      MarkedText text = *text_a;
      text.append(*text_b);
      return text;
    }
    if (joins(list_a) && joins(list_b) && list_a->kind == list_b->kind) {
      std::vector<Value> items = list_a->items;
      items.insert(items.end(), list_b->items.begin(), list_b->items.end());
      return make_list(std::move(items), list_a->kind);
    }
    if (text_a != nullptr || joins(list_a)) {
      fail_type(fmt::format("can only concatenate {} (not \"{}\") to {}", a.type_name(),
                            b.type_name(), a.type_name()));
    }
  }
  if (op == Operator::Multiply && (whole_a || whole_b)) {
    const Value& many = whole_a ? b : a;
    const auto count = static_cast<uint64_t>(std::max<int64_t>(whole_a ? *whole_a : *whole_b, 0));
    if (const MarkedText* text = many.as_text()) {
      if (text->size() > 0 && count > limits_.text_bytes / text->size()) {
        spend_bytes(limits_.text_bytes + 1);
      }
      spend_bytes(text->size() * count);
      MarkedText out;
      for (uint64_t i = 0; i < count && text->size() > 0; ++i) out.append(*text);
      return out;
    }
    if (joins(many.as_sequence())) {
      const std::vector<Value>& once = many.as_sequence()->items;
      std::vector<Value> items;
      if (!once.empty()) {
        if (count > left_ / once.size()) out_of_steps();
        spend(count * once.size());
        for (uint64_t i = 0; i < count; ++i) items.insert(items.end(), once.begin(), once.end());
      }
      return make_list(std::move(items), many.as_sequence()->kind);
    }
  }
  fail_type(fmt::format("unsupported operand type(s) for {}: '{}' and '{}'", symbol(op),
                        a.type_name(), b.type_name()));
}

bool Interpreter::less(const Value& a, const Value& b) {
  spend(1);
  need_defined(a);
  need_defined(b);
  if (a.is_number() && b.is_number()) {
    const auto whole_a = a.as_integer(), whole_b = b.as_integer();
    if (whole_a && whole_b) return *whole_a < *whole_b;
    return a.as_double() < b.as_double();
  }
  const MarkedText *text_a = a.as_text(), *text_b = b.as_text();
  if (text_a != nullptr && text_b != nullptr) {
    spend_bytes(std::min(text_a->size(), text_b->size()));
    return text_a->bytes() < text_b->bytes();
  }
  const Sequence *list_a = a.as_sequence(), *list_b = b.as_sequence();
  if (list_a != nullptr && list_b != nullptr && list_a->kind == list_b->kind &&
      list_a->kind <= Sequence::Kind::Tuple) {
    for (size_t i = 0; i < list_a->items.size() && i < list_b->items.size(); ++i) {
      if (same(list_a->items[i], list_b->items[i])) continue;
      return less(list_a->items[i], list_b->items[i]);
    }
    return list_a->items.size() < list_b->items.size();
  }
  fail_type(fmt::format("'<' not supported between instances of '{}' and '{}'", a.type_name(),
                        b.type_name()));
}

bool Interpreter::same(const Value& a, const Value& b) {
  spend(std::min(a.weight(), b.weight()));
  return equal(a, b);
}

void Interpreter::need_hashable(const Value& key) {
  spend(key.weight());
  if (!hash_of(key)) fail_type(fmt::format("unhashable type: '{}'", key.type_name()));
}

void Interpreter::spend_search(const Dict& dict, const Value& key) {
  uint64_t steps = 1;  // texts are indexed, others are compared with each key
  if (key.as_text() == nullptr &&
      __builtin_mul_overflow(uint64_t{dict.members.size()} + 1, key.weight(), &steps)) {
    out_of_steps();
  }
  spend(steps);
}

const Value* Interpreter::find(const Dict& dict, const Value& key) {
  spend_search(dict, key);
  return dict.find(key);
}

void Interpreter::set(Dict& dict, const Value& key, Value value) {
  spend_search(dict, key);
  dict.set(key, std::move(value));
}

bool Interpreter::contains(const Value& container, const Value& item) {
  if (const MarkedText* text = container.as_text()) {
    const MarkedText* part = item.as_text();
    if (part == nullptr) {
      fail_type(
          fmt::format("'in <string>' requires string as left operand, not {}", item.type_name()));
    }
    spend_bytes(text->size());
    return chat_template::find(text->bytes(), part->bytes()) != std::string_view::npos;
  }
  if (const Dict* dict = container.as_dict()) {
    need_hashable(item);
    return find(*dict, item) != nullptr;
  }
  if (container.is_undefined()) {
    if (container.as<Undefined>()->unsafe) need_defined(container);
    return false;
  }
  const Sequence* list = container.as_sequence();
  if (list == nullptr) {
    fail_type(fmt::format("argument of type '{}' is not iterable", container.type_name()));
  }
  spend(list->weight);
  return std::any_of(list->items.begin(), list->items.end(),
                     [&](const Value& one) { return equal(one, item); });
}

bool Interpreter::compare(Operator op, const Value& a, const Value& b) {
  switch (op) {
    case Operator::Equal:
      return same(a, b);
    case Operator::NotEqual:
      return !same(a, b);
    case Operator::In:
      return contains(b, a);
    case Operator::NotIn:
      return !contains(b, a);
    default:
      break;
  }
  need_defined(a);
  need_defined(b);
  const bool comparable = (a.is_number() && b.is_number()) ||
                          (a.as_text() != nullptr && b.as_text() != nullptr) ||
                          (a.as_sequence() != nullptr && b.as_sequence() != nullptr &&
                           a.as_sequence()->kind == b.as_sequence()->kind &&
                           a.as_sequence()->kind <= Sequence::Kind::Tuple);
  if (!comparable) {
    fail_type(fmt::format("'{}' not supported between instances of '{}' and '{}'", symbol(op),
                          a.type_name(), b.type_name()));
  }
  const bool nan = (a.as<double>() != nullptr && std::isnan(*a.as<double>())) ||
                   (b.as<double>() != nullptr && std::isnan(*b.as<double>()));
  if (nan) return false;
  switch (op) {
    case Operator::Less:
      return less(a, b);
    case Operator::Greater:
      return less(b, a);
    case Operator::LessEqual:
      return !less(b, a);
    default:
      return !less(a, b);
  }
}

Value Interpreter::member(const Value& object, std::string_view name) {
  need_defined(object);
  bool unsafe = false;
  if (const Function* function = object.as_function()) {
    if (function->attribute) {
      if (auto value = function->attribute(*this, name)) return std::move(*value);
    }
  }
  if (const Namespace* space = object.as_namespace()) {
    spend(space->members.size() / kComparisonsOfAStep);
    for (const auto& [key, value] : space->members) {
      if (key == name) return value;
    }
  }
  if (auto method = find_method(object, name, unsafe)) return std::move(*method);
  if (unsafe) return unsafe_member(object, name);
  if (const Dict* dict = object.as_dict()) {
    if (const Value* value = dict->find(name)) return *value;
  }
  return missing_member(object, name);
}

Value Interpreter::item(const Value& object, const Value& key) {
  need_defined(object);
  const auto whole = key.as_integer();
  if (const Dict* dict = object.as_dict()) {
    spend(key.weight());
    if (const Value* value = hash_of(key) ? find(*dict, key) : nullptr) return *value;
  } else if (const Sequence* list = object.as_sequence();
             list != nullptr && whole && list->kind <= Sequence::Kind::Range) {
    const auto size = static_cast<int64_t>(list->items.size());
    const int64_t at = *whole < 0 ? *whole + size : *whole;
    if (at >= 0 && at < size) return list->items[static_cast<size_t>(at)];
  } else if (const MarkedText* text = object.as_text(); text != nullptr && whole) {
    spend_bytes(text->size());
    const auto size = static_cast<int64_t>(chat_template::length(text->bytes()));
    const int64_t at = *whole < 0 ? *whole + size : *whole;
    if (at >= 0 && at < size) {
      const size_t begin = offset_of(text->bytes(), static_cast<size_t>(at));
      return text->sub(begin, begin + utf8::decode(text->bytes().substr(begin)).length);
    }
  }
  if (const MarkedText* name = key.as_text()) {
    if (object.as_dict() == nullptr) return member(object, name->bytes());
    bool unsafe = false;
    if (auto method = find_method(object, name->bytes(), unsafe)) return std::move(*method);
    if (unsafe) return unsafe_member(object, name->bytes());
    return missing_member(object, name->bytes());
  }
  return undefined(fmt::format("{} has no element {}", type_in_words(object), repr_of(key)));
}

Value Interpreter::slice(const Value& object, const Value& begin, const Value& end,
                         const Value& step) {
  need_defined(object);
  if (const MarkedText* text = object.as_text()) {
    spend_bytes(text->size());
    const auto size = static_cast<int64_t>(chat_template::length(text->bytes()));
    const SliceBounds bounds = slice_bounds(begin, end, step, size);
    if (bounds.step == 1) {
      if (bounds.begin >= bounds.end) return MarkedText();
      const size_t from = offset_of(text->bytes(), static_cast<size_t>(bounds.begin));
      const size_t count = static_cast<size_t>(bounds.end - bounds.begin);
      return text->sub(from, from + offset_of(text->bytes().substr(from), count));
    }
    std::vector<size_t> offsets;  // of each code point
    for (size_t at = 0; at < text->size(); at += utf8::decode(text->bytes().substr(at)).length) {
      offsets.push_back(at);
    }
    offsets.push_back(text->size());
    spend(offsets.size());
    MarkedText out;
    for (int64_t at = bounds.begin; bounds.step > 0 ? at < bounds.end : at > bounds.end;
         at += bounds.step) {
      out.append(*text, offsets[static_cast<size_t>(at)], offsets[static_cast<size_t>(at) + 1]);
    }
    return out;
  }
  const Sequence* list = object.as_sequence();
  if (list == nullptr || list->kind > Sequence::Kind::Range) {
    if (object.as_dict() != nullptr) fail_type("unhashable type: 'slice'");
    fail_type(fmt::format("'{}' object is not subscriptable", object.type_name()));
  }
  const SliceBounds bounds =
      slice_bounds(begin, end, step, static_cast<int64_t>(list->items.size()));
  std::vector<Value> items;
  for (int64_t at = bounds.begin; bounds.step > 0 ? at < bounds.end : at > bounds.end;
       at += bounds.step) {
    items.push_back(list->items[static_cast<size_t>(at)]);
  }
  return make_list(std::move(items), list->kind == Sequence::Kind::Tuple ? Sequence::Kind::Tuple
                                                                         : Sequence::Kind::List);
}

Value Interpreter::call(const Value& callee, const Arguments& given) {
  need_defined(callee);
  const Function* function = callee.as_function();
  if (function == nullptr || !function->call) {
    fail_type(fmt::format("'{}' object is not callable", callee.type_name()));
  }
  const Nesting nesting(*this);
  return function->call(*this, given);
}

SequencePointer Interpreter::iterate(const Value& value) {
  static const auto kNothing = std::make_shared<Sequence>();
  if (const auto* list = value.as<SequencePointer>()) {
    if ((*list)->kind != Sequence::Kind::Generator) return *list;
    if ((*list)->used_up) return kNothing;
    (*list)->used_up = true;
    return *list;
  }
  if (const auto* missing = value.as<Undefined>()) {
    if (missing->unsafe) need_defined(value);
    return kNothing;
  }
  std::vector<Value> items;
  if (const Dict* dict = value.as_dict()) {
    for (const auto& [key, member] : dict->members) items.push_back(key);
  } else if (const MarkedText* text = value.as_text()) {
    spend(text->size());
    for (size_t at = 0; at < text->size();) {
      const size_t length = utf8::decode(text->bytes().substr(at)).length;
      items.push_back(text->sub(at, at + length));
      at += length;
    }
  } else {
    fail_type(fmt::format("'{}' object is not iterable", value.type_name()));
  }
  return *make_list(std::move(items)).as<SequencePointer>();
}

size_t Interpreter::length(const Value& value) {
  if (const MarkedText* text = value.as_text()) {
    spend_bytes(text->size());
    return chat_template::length(text->bytes());
  }
  if (const Sequence* list = value.as_sequence();
      list != nullptr && list->kind != Sequence::Kind::Generator) {
    return list->items.size();
  }
  if (const Dict* dict = value.as_dict()) return dict->members.size();
  if (const auto* missing = value.as<Undefined>()) {
    if (missing->unsafe) need_defined(value);
    return 0;
  }
  fail_type(fmt::format("object of type '{}' has no len()", value.type_name()));
}

MarkedText Interpreter::str(const Value& value) {
  spend(value.weight());
  MarkedText text;
  append_str(text, value);
  spend_bytes(text.size());
  return text;
}

}  // namespace quern::chat_template
