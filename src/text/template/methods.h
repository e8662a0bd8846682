// How methods are written and found: one table for each type of value.
#pragma once

#include <string_view>
#include <unordered_map>

#include "text/template/value.h"

namespace quern::chat_template {

using Method = Value (*)(Interpreter&, const Value& self, const Arguments&);
using MethodTable = std::unordered_map<std::string_view, Method>;

const MethodTable& text_methods();  // of str

// A function as a value. `depth` is that of the values it holds, plus one.
FunctionPointer make_function(std::string_view name,
                              std::function<Value(Interpreter&, const Arguments&)> call, int depth);

}  // namespace quern::chat_template
