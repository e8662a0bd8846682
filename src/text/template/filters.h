// How filters are written and found: one table for each kind of what they take.
#pragma once

#include <string_view>
#include <unordered_map>

#include "text/template/value.h"

namespace quern::chat_template {

using FilterFunction = Value (*)(Interpreter&, const Value&, const Arguments&);
using FilterTable = std::unordered_map<std::string_view, FilterFunction>;

const FilterTable& text_filters();
const FilterTable& sequence_filters();  // of lists and dicts, as wholes and item by item

}  // namespace quern::chat_template
