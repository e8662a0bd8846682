// JSON that keeps what nlohmann's tree loses: the order of an object's members, and integers of any
// size. Prompts quote tools, arguments and documents as Python's json module would write them, so a
// reordered key or a rounded number would be another prompt.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/json.h"

namespace quern {

struct OrderedJson {
  enum class Kind : uint8_t { Null, Bool, Integer, Float, String, Array, Object };
  using Member = std::pair<std::string, OrderedJson>;

  Kind kind = Kind::Null;
  bool boolean = false;
  double number = 0;  // of a Float
  std::string text;   // a String's UTF-8, or an Integer's digits with their sign
  std::vector<OrderedJson> items;
  std::vector<Member> members;

  // Strict, as Json::parse: valid UTF-8, no duplicate keys, `limits` kept to. Throws BadInput that
  // names `source`.
  static OrderedJson parse(std::string_view text, std::string_view source,
                           const JsonLimits& limits = {});
  static OrderedJson of_bool(bool value);
  static OrderedJson of_integer(std::string digits);
  static OrderedJson of_float(double value);
  static OrderedJson of_string(std::string value);

  bool is(Kind other) const noexcept { return kind == other; }
  bool is_object() const noexcept { return kind == Kind::Object; }
  bool is_array() const noexcept { return kind == Kind::Array; }
  bool is_string() const noexcept { return kind == Kind::String; }
  bool is_null() const noexcept { return kind == Kind::Null; }

  // A member of an object; null where there is none.
  const OrderedJson* find(std::string_view key) const noexcept;
  // Sets a member: in its place where the key is there already, as the last one otherwise.
  void set(std::string key, OrderedJson value);
};

// How Python's json.dumps(ensure_ascii=False) writes. The defaults are Python's.
struct PythonJson {
  bool sort_keys = false;  // by code points
  int indent = -1;         // spaces per level; -1: all on one line
  std::string_view item_separator = ", ";
  std::string_view key_separator = ": ";
};
std::string python_dumps(const OrderedJson& value, const PythonJson& style = {});

// A double as Python's repr() writes it: 1.0, 1e-07, 1e+22, 100000.0, inf, nan.
std::string python_repr(double value);

}  // namespace quern
