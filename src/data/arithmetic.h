// Arithmetic as Python reads it: numbers, + - * / // % **, signs and brackets.
#pragma once

#include <optional>
#include <string_view>

namespace quern {

// The value; nothing for what is no arithmetic or has no finite real value.
std::optional<double> evaluate_arithmetic(std::string_view text);

// A number as Python's float() reads it, "inf" and "nan" left out.
std::optional<double> parse_python_float(std::string_view text);

}  // namespace quern
