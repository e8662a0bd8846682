// What a template's expressions come to: Python's values, as far as Jinja lets a template see them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "core/ordered_json.h"
#include "text/template/marked_text.h"

namespace quern::chat_template {

class Value;
class Interpreter;

// A variable or member that is not there: prints as nothing, is false and empty; anything else done
// with it is an error with this message.
struct Undefined {
  std::shared_ptr<const std::string> problem;
  bool unsafe = false;  // its use is a breach of the sandbox
};

struct None {};

// An integer past 64 bits: printed and compared, not calculated with.
struct BigInteger {
  std::shared_ptr<const std::string> digits;
};

// Lists and what behaves alike. Their items never change.
struct Sequence {
  enum class Kind : uint8_t { List, Tuple, Range, Generator, Keys, Values, Items };
  Kind kind = Kind::List;
  int depth = 1;        // of nesting, so that nothing recurses without end
  uint64_t weight = 1;  // of all within, each counted as often as it is reached
  std::vector<Value> items;
  bool used_up = false;  // of a generator
  bool grouped = false;  // a tuple of the filter groupby, with the members grouper and list
  int64_t range[3] = {0, 0, 1};
};

struct Dict {
  int depth = 1;
  uint64_t weight = 1;
  std::vector<std::pair<Value, Value>> members;   // in their order
  std::unordered_map<std::string, size_t> index;  // of keys that are strings, once there are many

  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  void set(Value key, Value value);
};

struct Namespace {
  int depth = 1;
  std::vector<std::pair<std::string, Value>> members;
  std::string type = "Namespace";
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

struct Function {
  std::string name;
  std::function<Value(Interpreter&, const Arguments&)> call;
  // Attributes of those that have some: the loop, macros.
  std::function<std::optional<Value>(Interpreter&, std::string_view)> attribute;
  const char* type = "function";
  int depth = 0;  // one more than that of the values it holds
};

using TextPointer = std::shared_ptr<const MarkedText>;
using SequencePointer = std::shared_ptr<Sequence>;
using DictPointer = std::shared_ptr<Dict>;
using NamespacePointer = std::shared_ptr<Namespace>;
using FunctionPointer = std::shared_ptr<const Function>;

class Value {
 public:
  using Variant = std::variant<Undefined, None, bool, int64_t, BigInteger, double, TextPointer,
                               SequencePointer, DictPointer, NamespacePointer, FunctionPointer>;

  Value() : data_(None{}) {}
  template <class T>
  requires std::is_constructible_v<Variant, T> Value(
      T value)  // NOLINT: the alternatives stand for values themselves
      : data_(std::move(value)) {}
  Value(MarkedText text) : data_(std::make_shared<const MarkedText>(std::move(text))) {}
  Value(const char*) = delete;

  static Value text(std::string_view bytes, Origin origin = kLiteral) {
    return MarkedText(bytes, origin);
  }

  template <class T>
  const T* as() const noexcept {
    return std::get_if<T>(&data_);
  }
  const MarkedText* as_text() const noexcept {
    const auto* text = as<TextPointer>();
    return text != nullptr ? text->get() : nullptr;
  }
  Sequence* as_sequence() const noexcept {
    const auto* sequence = as<SequencePointer>();
    return sequence != nullptr ? sequence->get() : nullptr;
  }
  const Dict* as_dict() const noexcept {
    const auto* dict = as<DictPointer>();
    return dict != nullptr ? dict->get() : nullptr;
  }
  Namespace* as_namespace() const noexcept {
    const auto* space = as<NamespacePointer>();
    return space != nullptr ? space->get() : nullptr;
  }
  const Function* as_function() const noexcept {
    const auto* function = as<FunctionPointer>();
    return function != nullptr ? function->get() : nullptr;
  }
  bool is_undefined() const noexcept { return as<Undefined>() != nullptr; }
  bool is_none() const noexcept { return as<None>() != nullptr; }
  // An integer or a bool, which Python counts as one.
  std::optional<int64_t> as_integer() const noexcept;
  bool is_number() const noexcept;
  double as_double() const noexcept;  // of a number

  bool truthy() const noexcept;
  int depth() const noexcept;
  // What it takes to go through it once, in steps of an item or eight bytes. Lists that hold one
  // another several times can be of a weight that nothing may go through.
  uint64_t weight() const noexcept;
  // Python's name of its type: "dict", "str", "NoneType".
  std::string type_name() const;

  const Variant& data() const noexcept { return data_; }

 private:
  Variant data_;
};

// The undefined value with this message.
Value undefined(std::string problem, bool unsafe = false);

// A sum that stays at the largest number.
uint64_t add_weights(uint64_t a, uint64_t b) noexcept;

// Python's ==, in as many steps as the lighter one weighs. Numbers of different types compare by value.
bool equal(const Value& a, const Value& b);
// A hash that agrees with equal(); nothing for what Python cannot hash.
std::optional<size_t> hash_of(const Value& value);

// str() and repr(), appended, in as many steps as the value weighs.
void append_str(MarkedText& out, const Value& value);
void append_repr(MarkedText& out, const Value& value);

// JSON as a value; strings get `origin`.
Value from_json(const OrderedJson& json, Origin origin);

}  // namespace quern::chat_template
