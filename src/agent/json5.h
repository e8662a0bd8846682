// JSON5 (https://spec.json5.org), as models write it: the arguments of a tool call.
#pragma once

#include <optional>
#include <string_view>

#include "core/ordered_json.h"

namespace quern {

struct Json5Rules {
  bool constants = true;  // NaN and Infinity are numbers
  // Beyond JSON5, what models get wrong and what can only mean one thing: raw line ends in strings,
  // full-width ： and ， between values, strings in “ ”.
  bool repairs = false;
  // At the end of the text what is open is closed: a string, then objects and arrays. A comma at
  // the end is dropped; a key without its value or half a word stays an error.
  bool close_at_end = false;
  int max_depth = 200;
};

struct Json5Value {
  OrderedJson value;  // of two members with one key the last one holds
  size_t end = 0;     // offset after the value
  bool repaired = false;
};

// The value that `text` begins with, after white space and comments; nothing where there is none.
// Linear in the text.
std::optional<Json5Value> read_json5(std::string_view text, const Json5Rules& rules = {});

// Whole texts: nothing but white space and comments may follow the value.
std::optional<OrderedJson> parse_json5(std::string_view text, const Json5Rules& rules = {});

// Offset of the first byte from `at` on that is not JSON5's white space; comments are not skipped.
size_t skip_json5_space(std::string_view text, size_t at) noexcept;
// `text` without JSON5's white space at both ends.
std::string_view trim_json5_space(std::string_view text) noexcept;

}  // namespace quern
