// Methods of lists and dicts, and which methods a value has.
#include "text/template/methods.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "text/template/builtins.h"
#include "text/template/interpreter.h"

namespace quern::chat_template {
namespace {

using R = Interpreter&;
using V = const Value&;
using A = const Arguments&;

Value number(size_t value) { return static_cast<int64_t>(value); }

Value list_count(R run, V self, A given) {
  const ArgumentReader args("count", given, {"value"}, 1);
  const auto& items = self.as_sequence()->items;
  run.spend(self.weight());
  return number(static_cast<size_t>(std::count_if(
      items.begin(), items.end(), [&](const Value& item) { return equal(item, *args[0]); })));
}
Value list_index(R run, V self, A given) {
  const ArgumentReader args("index", given, {"value"}, 1);
  const auto& items = self.as_sequence()->items;
  run.spend(self.weight());
  for (size_t i = 0; i < items.size(); ++i) {
    if (equal(items[i], *args[0])) return number(i);
  }
  fail_value("the value is not in list");
}

Value dict_view(R run, V self, Sequence::Kind kind) {
  std::vector<Value> items;
  for (const auto& [key, value] : self.as_dict()->members) {
    if (kind == Sequence::Kind::Items) {
      items.push_back(run.make_list({key, value}, Sequence::Kind::Tuple));
    } else {
      items.push_back(kind == Sequence::Kind::Keys ? key : value);
    }
  }
  return run.make_list(std::move(items), kind);
}
Value dict_get(R run, V self, A given) {
  const ArgumentReader args("get", given, {"key", "default"}, 1);
  run.need_hashable(*args[0]);
  if (const Value* found = run.find(*self.as_dict(), *args[0])) return *found;
  return args[1] != nullptr ? *args[1] : Value(None{});
}

const MethodTable& dict_methods() {
  static const MethodTable kMethods = {
      {"copy", [](R, V self, A) { return self; }},
      {"get", dict_get},
      {"items", [](R run, V self, A) { return dict_view(run, self, Sequence::Kind::Items); }},
      {"keys", [](R run, V self, A) { return dict_view(run, self, Sequence::Kind::Keys); }},
      {"values", [](R run, V self, A) { return dict_view(run, self, Sequence::Kind::Values); }},
  };
  return kMethods;
}
const MethodTable& list_methods() {
  static const MethodTable kMethods = {
      {"copy", [](R, V self, A) { return self; }}, {"count", list_count}, {"index", list_index}};
  return kMethods;
}

const std::unordered_set<std::string_view>& changing(bool dict) {
  static const std::unordered_set<std::string_view> kDict = {"clear", "pop", "popitem",
                                                             "setdefault", "update"};
  static const std::unordered_set<std::string_view> kList = {
      "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"};
  return dict ? kDict : kList;
}

// Attributes that every Python object has; the sandbox hides them.
bool inner_attribute(std::string_view name) {
  if (!name.starts_with("__") || !name.ends_with("__")) return false;
  static const std::unordered_set<std::string_view> kInner = {"__class__",
                                                              "__doc__",
                                                              "__init__",
                                                              "__new__",
                                                              "__dict__",
                                                              "__module__",
                                                              "__mro__",
                                                              "__subclasses__",
                                                              "__getattribute__",
                                                              "__setattr__",
                                                              "__delattr__",
                                                              "__eq__",
                                                              "__ne__",
                                                              "__lt__",
                                                              "__le__",
                                                              "__gt__",
                                                              "__ge__",
                                                              "__hash__",
                                                              "__repr__",
                                                              "__str__",
                                                              "__format__",
                                                              "__reduce__",
                                                              "__reduce_ex__",
                                                              "__sizeof__",
                                                              "__dir__",
                                                              "__init_subclass__",
                                                              "__subclasshook__",
                                                              "__getstate__",
                                                              "__len__",
                                                              "__iter__",
                                                              "__contains__",
                                                              "__getitem__",
                                                              "__setitem__",
                                                              "__delitem__",
                                                              "__add__",
                                                              "__mul__",
                                                              "__rmul__",
                                                              "__call__",
                                                              "__globals__",
                                                              "__code__",
                                                              "__closure__",
                                                              "__builtins__",
                                                              "__func__",
                                                              "__self__",
                                                              "__name__",
                                                              "__qualname__",
                                                              "__class_getitem__",
                                                              "__getnewargs__",
                                                              "__mod__",
                                                              "__or__",
                                                              "__reversed__"};
  return kInner.contains(name);
}

}  // namespace

FunctionPointer make_function(std::string_view name,
                              std::function<Value(Interpreter&, const Arguments&)> call,
                              int depth) {
  auto made = std::make_shared<Function>();
  made->name = std::string(name);
  made->call = std::move(call);
  made->depth = depth;
  return made;
}

std::optional<Value> find_method(const Value& self, std::string_view name, bool& unsafe) {
  const MethodTable* table = nullptr;
  if (self.as_text() != nullptr) {
    table = &text_methods();
  } else if (self.as_dict() != nullptr) {
    table = &dict_methods();
    unsafe = changing(true).contains(name);
  } else if (const Sequence* list = self.as_sequence()) {
    if (list->grouped && (name == "grouper" || name == "list")) {
      return list->items[name == "list" ? 1 : 0];
    }
    if (list->kind <= Sequence::Kind::Range) table = &list_methods();
    unsafe = list->kind == Sequence::Kind::List && changing(false).contains(name);
  } else if (self.as<double>() != nullptr && name == "is_integer") {
    const double number = *self.as<double>();
    return make_function(
        name, [number](R, A) { return std::isfinite(number) && number == std::floor(number); }, 0);
  }
  unsafe = unsafe || inner_attribute(name);
  if (unsafe || table == nullptr) return std::nullopt;
  const auto found = table->find(name);
  if (found == table->end()) return std::nullopt;
  return make_function(
      name,
      [self, method = found->second](R run, A given) {
        run.spend(1);
        return method(run, self, given);
      },
      self.depth() + 1);
}

}  // namespace quern::chat_template
