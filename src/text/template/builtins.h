// What templates find beside their own variables: filters, tests, methods of values, functions.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "text/template/value.h"

namespace quern::chat_template {

class Interpreter;

bool has_filter(std::string_view name);
bool has_test(std::string_view name);

// Throw TemplateError as Python and Jinja would.
Value call_filter(Interpreter& run, std::string_view name, const Value& input,
                  const Arguments& arguments);
bool call_test(Interpreter& run, std::string_view name, const Value& input,
               const Arguments& arguments);

// A method of a value, bound to it; nothing where its type has none of that name. `unsafe` is set
// for what the sandbox hides: what changes a list or dict, and Python's inner attributes.
std::optional<Value> find_method(const Value& self, std::string_view name, bool& unsafe);

// range, dict, namespace, cycler, joiner, raise_exception, strftime_now; nothing for another name.
std::optional<Value> find_global(std::string_view name);

// Python's json.dumps(value, ensure_ascii, indent, separators, sort_keys).
struct JsonStyle {
  bool ascii = false, sort_keys = false;
  std::optional<std::string> indent;
  std::string item_separator = ", ", key_separator = ": ";
};
MarkedText to_json(Interpreter& run, const Value& value, const JsonStyle& style);

// str.format and the % operator.
MarkedText format_braces(Interpreter& run, const MarkedText& format, const Arguments& arguments);
MarkedText format_percent(Interpreter& run, const MarkedText& format, const Value& values);
// One value by a format specification: ">10", "05d", ".2f".
MarkedText format_value(const Value& value, std::string_view specification);

// A call's arguments by their names. Throws a TypeError for too many, unknown and missing ones.
class ArgumentReader {
 public:
  ArgumentReader(std::string_view function, const Arguments& arguments,
                 std::initializer_list<std::string_view> names, size_t required = 0);

  const Value* operator[](size_t index) const { return found_[index]; }  // null: not given
  int64_t integer(size_t index, int64_t fallback) const;
  bool flag(size_t index, bool fallback) const;
  // A text; null for what is not given and for anything else.
  const MarkedText* text(size_t index) const;
  const MarkedText& need_text(size_t index) const;

 private:
  std::string function_;
  const Value* found_[6] = {};
};

}  // namespace quern::chat_template
