// Exact fractions, and real functions rounded to 45 digits, for the calculator.
#pragma once

#include <boost/multiprecision/cpp_dec_float.hpp>
#include <boost/multiprecision/cpp_int.hpp>
#include <string>

namespace quern::exact {

using Integer = boost::multiprecision::cpp_int;
using Fraction = boost::multiprecision::cpp_rational;
using Real = boost::multiprecision::cpp_dec_float_50;

struct Number {
  Fraction value;
  bool rounded = false;  // some function had no exact result
};

// All throw BadInput for what has no value, and for results of more than some 6,000 digits.
Number checked(Number number);
Number divide(const Number& left, const Number& right);
Number remainder(const Number& left, const Number& right);  // as in Python, of the divisor's sign
Number raise(const Number& base, const Number& exponent);   // a root of a power is exact
Number factorial(const Number& number);                     // 0 to 1000

Real real(const Fraction& value);
Number rounded_number(const Real& value);

bool is_whole(const Fraction& value);
Fraction floor_of(const Fraction& value);
Integer whole_near(const Fraction& value);  // half away from zero

// All decimals of a fraction that has finitely many, up to 60; else 20 significant digits.
std::string decimal_text(const Number& number);

}  // namespace quern::exact
