#include "tools/exact_number.h"

#include <algorithm>

#include "core/error.h"

namespace quern::exact {
namespace {

constexpr unsigned kMaxBits = 20'000;  // of a numerator or denominator
constexpr int kDigits = 20;            // of a result that is rounded

unsigned bits(const Integer& value) {
  return value == 0 ? 0 : boost::multiprecision::msb(abs(value)) + 1;
}

// Half away from zero.
Integer nearest(const Integer& top, const Integer& bottom) {
  const Integer doubled = 2 * abs(top) + bottom;
  const Integer whole = doubled / (2 * bottom);
  return top < 0 ? -whole : whole;
}

// out^(1/exponent) = base, where both are small enough to tell.
Number exact_root(const Fraction& base, const Fraction& exponent, Number out) {
  if (numerator(exponent) != 1 || denominator(exponent) > 64) return out;
  const auto degree = static_cast<unsigned>(denominator(exponent));
  const Fraction scaled = out.value * 1000000;
  const Fraction near(nearest(numerator(scaled), denominator(scaled)), Integer(1000000));
  Fraction product = 1;
  for (unsigned i = 0; i < degree; ++i) product *= near;
  return product == base ? Number{near, false} : out;
}

}  // namespace

Number checked(Number number) {
  if (bits(numerator(number.value)) > kMaxBits || bits(denominator(number.value)) > kMaxBits) {
    throw_bad_input("a number in the expression has more than 6000 digits");
  }
  return number;
}

Number divide(const Number& left, const Number& right) {
  if (right.value == 0) throw_bad_input("the expression divides by zero");
  return checked({left.value / right.value, left.rounded || right.rounded});
}
Number remainder(const Number& left, const Number& right) {
  if (right.value == 0) throw_bad_input("the expression divides by zero");
  // As in Python, of the divisor's sign.
  return checked({left.value - right.value * floor_of(left.value / right.value),
                  left.rounded || right.rounded});
}

Real real(const Fraction& value) { return Real(numerator(value)) / Real(denominator(value)); }
Number rounded_number(const Real& value) {
  if (!isfinite(value)) throw_bad_input("the expression has no finite value");
  if (abs(value) > Real("1e5000") || (value != 0 && abs(value) < Real("1e-5000"))) {
    throw_bad_input("a number in the expression is too large or too small");
  }
  // Through text: the digits that there are, as a fraction of a power of ten.
  const std::string text = value.str(45, std::ios_base::scientific);
  const size_t mark = text.find('e');
  std::string digits = text.substr(0, mark);
  int64_t exponent = std::stoll(text.substr(mark + 1));
  const bool negative = digits[0] == '-';
  if (negative) digits.erase(0, 1);
  const size_t point = digits.find('.');
  if (point != digits.npos) {
    exponent -= static_cast<int64_t>(digits.size() - point - 1);
    digits.erase(point, 1);
  }
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size() - 1));
  const Integer whole(digits);
  const Integer scale = pow(Integer(10), static_cast<unsigned>(std::abs(exponent)));
  Fraction out = exponent < 0 ? Fraction(whole, scale) : Fraction(whole * scale);
  if (negative) out = -out;
  return {out, true};
}

Fraction floor_of(const Fraction& value) {
  const Integer top = numerator(value), bottom = denominator(value);
  Integer whole = top / bottom;
  if (top < 0 && whole * bottom != top) --whole;
  return Fraction(whole);
}
bool is_whole(const Fraction& value) { return denominator(value) == 1; }

Number raise(const Number& base, const Number& exponent) {
  const bool rounded = base.rounded || exponent.rounded;
  if (is_whole(exponent.value) && abs(numerator(exponent.value)) <= kMaxBits) {
    const auto count = static_cast<int>(numerator(exponent.value));
    const unsigned times = static_cast<unsigned>(std::abs(count));
    const Integer top = numerator(base.value), bottom = denominator(base.value);
    if ((uint64_t{bits(top)} + bits(bottom)) * times > 2 * kMaxBits) {
      throw_bad_input("a power in the expression has more than 6000 digits");
    }
    if (count < 0 && base.value == 0) throw_bad_input("the expression divides by zero");
    const Integer up = pow(top, times), down = pow(bottom, times);
    return checked({count < 0 ? Fraction(down, up) : Fraction(up, down), rounded});
  }
  if (base.value < 0) throw_bad_input("a negative number has no such power");
  if (base.value == 0) return {Fraction(0), rounded};
  // A root of what is one is exact.
  Number out = rounded_number(pow(real(base.value), real(exponent.value)));
  return exact_root(base.value, exponent.value, out);
}
Number factorial(const Number& number) {
  if (!is_whole(number.value) || number.value < 0 || number.value > 1000) {
    throw_bad_input("! takes a whole number from 0 to 1000");
  }
  Integer out = 1;
  for (int i = 2; i <= static_cast<int>(numerator(number.value)); ++i) out *= i;
  return {Fraction(out), number.rounded};
}

Integer whole_near(const Fraction& x) { return nearest(numerator(x), denominator(x)); }

std::string decimal_text(const Number& number) {
  Integer top = abs(numerator(number.value)), bottom = denominator(number.value);
  const std::string sign = number.value < 0 ? "-" : "";
  Integer rest = bottom;
  int twos = 0, fives = 0;
  while (rest % 2 == 0) rest /= 2, ++twos;
  while (rest % 5 == 0) rest /= 5, ++fives;
  const int places = std::max(twos, fives);
  const bool exact = rest == 1 && places <= 60 && !number.rounded;
  std::string digits;
  int shown = places;
  if (exact) {
    digits = Integer(top * pow(Integer(10), static_cast<unsigned>(places)) / bottom).str();
  } else {
    // So many places that kDigits digits count.
    const auto magnitude = static_cast<int>(Integer(top / bottom).str().size());
    int leading = 0;  // zeros behind the point
    if (top < bottom && top != 0) {
      leading = static_cast<int>(Integer(bottom / top).str().size()) - 1;
    }
    shown = std::max(0, top < bottom ? leading + kDigits : kDigits - magnitude);
    const Integer scaled = top * pow(Integer(10), static_cast<unsigned>(shown));
    digits = Integer((2 * scaled + bottom) / (2 * bottom)).str();
  }
  if (shown > 0) {
    const auto places_shown = static_cast<size_t>(shown);
    if (digits.size() <= places_shown) digits.insert(0, places_shown + 1 - digits.size(), '0');
    digits.insert(digits.size() - places_shown, ".");
    digits.erase(digits.find_last_not_of('0') + 1);
    if (digits.back() == '.') digits.pop_back();
  }
  return (digits == "0" ? "" : sign) + digits;
}

}  // namespace quern::exact
