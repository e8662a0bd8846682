// Size arithmetic for numbers that come from outside. Every parser computes with these: a sum or
// product that does not fit is an Error, never a wrap.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "core/error.h"

namespace quern {

template <class T>
T checked_add(T a, T b, std::string_view what) {
  T sum;
  if (__builtin_add_overflow(a, b, &sum)) {
    throw_bad_input(std::string(what) + ": the sum does not fit in a size");
  }
  return sum;
}

template <class T>
T checked_mul(T a, T b, std::string_view what) {
  T product;
  if (__builtin_mul_overflow(a, b, &product)) {
    throw_bad_input(std::string(what) + ": the product does not fit in a size");
  }
  return product;
}

template <class To, class From>
To checked_cast(From value, std::string_view what) {
  if (!std::in_range<To>(value)) {
    throw_bad_input(std::string(what) + ": " + std::to_string(value) + " is out of range");
  }
  return static_cast<To>(value);
}

}  // namespace quern
