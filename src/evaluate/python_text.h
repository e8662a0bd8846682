// The part of Python's str that needs Unicode's tables.
#pragma once

#include "core/python_text.h"
#include "text/unicode.h"

namespace quern::python {

inline bool is_alnum(char32_t point) noexcept {  // str.isalnum()
  const unicode::Class kind = unicode::class_of(point);
  return kind == unicode::Class::Letter || kind == unicode::Class::Number;
}

}  // namespace quern::python
