// A recursive descent over the expression, in exact fractions.
#include <fmt/format.h>

#include <boost/math/constants/constants.hpp>
#include <boost/multiprecision/cpp_dec_float.hpp>
#include <boost/multiprecision/cpp_int.hpp>
#include <functional>
#include <map>

#include "core/error.h"
#include "tools/builtin.h"

namespace quern {
namespace {

using Integer = boost::multiprecision::cpp_int;
using Fraction = boost::multiprecision::cpp_rational;
using Real = boost::multiprecision::cpp_dec_float_50;

constexpr size_t kMaxExpression = 4096;
constexpr int kMaxDepth = 100;
constexpr unsigned kMaxBits = 20'000;  // of a numerator or denominator
constexpr int kDigits = 20;            // of a result that is rounded

struct Number {
  Fraction value;
  bool rounded = false;  // some function had no exact result
};

unsigned bits(const Integer& value) {
  return value == 0 ? 0 : boost::multiprecision::msb(abs(value)) + 1;
}

// Symbols and words that mean one of ours. Two-word operators come before their first words.
constexpr std::pair<std::string_view, std::string_view> kWords[] = {{"to the power of", "^"},
                                                                    {"multiplied by", "*"},
                                                                    {"divided by", "/"},
                                                                    {"square root of", "sqrt"},
                                                                    {"added to", "+"},
                                                                    {"percent of", "% *"},
                                                                    {"per cent", "%"},
                                                                    {"percent", "%"},
                                                                    {"plus", "+"},
                                                                    {"minus", "-"},
                                                                    {"less", "-"},
                                                                    {"times", "*"},
                                                                    {"over", "/"},
                                                                    {"squared", "^2"},
                                                                    {"cubed", "^3"},
                                                                    {"modulo", "mod"},
                                                                    {"of", "*"},
                                                                    {"x", "*"},
                                                                    {"and", "+"},
                                                                    {"×", "*"},
                                                                    {"·", "*"},
                                                                    {"⋅", "*"},
                                                                    {"÷", "/"},
                                                                    {"−", "-"},
                                                                    {"–", "-"},
                                                                    {"（", "("},
                                                                    {"）", ")"},
                                                                    {"，", ","},
                                                                    {"％", "%"},
                                                                    {"＋", "+"},
                                                                    {"π", "pi"},
                                                                    {"√", "sqrt"},
                                                                    {"²", "^2"},
                                                                    {"³", "^3"},
                                                                    {"**", "^"},
                                                                    {"$", ""}};

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Calculator {
 public:
  explicit Calculator(std::string_view text) {
    if (text.size() > kMaxExpression) throw_bad_input("the expression is longer than 4096 bytes");
    while (!text.empty() && (text.back() == ' ' || text.back() == '\n' || text.back() == '?' ||
                             text.back() == '=' || text.back() == '.')) {
      text.remove_suffix(1);
    }
    read_words(text);
  }

  Number run() {
    if (skip() == text_.size()) throw_bad_input("the expression is empty");
    const Number result = sum();
    if (skip() < text_.size()) fail("something that does not belong here");
    return result;
  }

 private:
  // Words become symbols: all that follows knows one spelling of each.
  void read_words(std::string_view text) {
    for (size_t at = 0; at < text.size();) {
      bool found = false;
      for (const auto& [word, symbol] : kWords) {
        if (!starts(text.substr(at), word)) continue;
        const bool letters = is_letter(word.front());
        const size_t end = at + word.size();
        if (letters && ((at > 0 && is_letter(text[at - 1])) ||
                        (end < text.size() && (is_letter(text[end]) || is_digit(text[end]))))) {
          continue;
        }
        text_ += fmt::format(" {} ", symbol);
        at = end;
        found = true;
        break;
      }
      if (!found) text_ += text[at++];
    }
  }
  static bool starts(std::string_view text, std::string_view word) {
    if (text.size() < word.size()) return false;
    for (size_t i = 0; i < word.size(); ++i) {
      const char c = text[i];
      if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c) != word[i]) return false;
    }
    return true;
  }

  [[noreturn]] void fail(const std::string& problem) const {
    const std::string_view rest = std::string_view(text_).substr(std::min(at_, text_.size()));
    throw_bad_input(
        rest.empty() ? fmt::format("the expression ends with {}", problem)
                     : fmt::format("the expression has {} at '{}'", problem, printable(rest, 40)));
  }
  size_t skip() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n')) {
      ++at_;
    }
    return at_;
  }
  char peek() { return skip() < text_.size() ? text_[at_] : '\0'; }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  std::string peek_word() {
    skip();
    size_t end = at_;
    while (end < text_.size() && (is_letter(text_[end]) || (end > at_ && is_digit(text_[end])))) {
      ++end;
    }
    return text_.substr(at_, end - at_);
  }

  Number checked(Number number) const {
    if (bits(numerator(number.value)) > kMaxBits || bits(denominator(number.value)) > kMaxBits) {
      throw_bad_input("a number in the expression has more than 6000 digits");
    }
    return number;
  }

  Number sum() {
    if (++depth_ > kMaxDepth) throw_bad_input("the expression is nested too deeply");
    Number left = product();
    for (;;) {
      if (take('+')) {
        const Number right = product();
        left = checked({left.value + right.value, left.rounded || right.rounded});
      } else if (take('-')) {
        const Number right = product();
        left = checked({left.value - right.value, left.rounded || right.rounded});
      } else {
        --depth_;
        return left;
      }
    }
  }

  Number divide(const Number& left, const Number& right) const {
    if (right.value == 0) throw_bad_input("the expression divides by zero");
    return checked({left.value / right.value, left.rounded || right.rounded});
  }
  Number remainder(const Number& left, const Number& right) const {
    if (right.value == 0) throw_bad_input("the expression divides by zero");
    // As in Python, of the divisor's sign.
    return checked({left.value - right.value * floor_of(left.value / right.value),
                    left.rounded || right.rounded});
  }

  Number product() {
    Number left = unary();
    for (;;) {
      if (take('*')) {
        const Number right = unary();
        left = checked({left.value * right.value, left.rounded || right.rounded});
      } else if (take('/')) {
        take('/');
        left = divide(left, unary());
      } else if (take('%')) {
        left = remainder(left, unary());
      } else if (peek_word() == "mod") {
        at_ += 3;
        left = remainder(left, unary());
      } else if (peek() == '(') {  // 2(3 + 4)
        const Number right = unary();
        left = checked({left.value * right.value, left.rounded || right.rounded});
      } else {
        return left;
      }
    }
  }

  Number unary() {
    bool negative = false;
    int signs = 0;
    for (;;) {
      if (take('-')) {
        negative = !negative;
      } else if (!take('+')) {
        break;
      }
      if (++signs > kMaxDepth) fail("too many signs");
    }
    Number number = power();
    if (negative) number.value = -number.value;
    return number;
  }

  Number power() {
    if (++depth_ > kMaxDepth) throw_bad_input("the expression is nested too deeply");
    const Number base = postfix();
    Number result = base;
    if (take('^')) result = raise(base, unary());
    --depth_;
    return result;
  }

  // A % with an operand behind it is the remainder.
  bool percent_follows() {
    if (peek() != '%') return false;
    const size_t here = at_++;
    const char next = peek();
    const bool operand =
        is_digit(next) || next == '.' || next == '(' || (is_letter(next) && peek_word() != "mod");
    at_ = operand ? here : here + 1;
    return !operand;
  }

  Number postfix() {
    Number number = primary();
    for (;;) {
      if (percent_follows()) {
        number.value /= 100;
      } else if (peek() == '!') {
        ++at_;
        number = factorial(number);
      } else {
        return number;
      }
    }
  }

  Number primary() {
    const char c = peek();
    if (is_digit(c) || c == '.') return literal();
    if (take('(')) {
      const Number inner = sum();
      if (!take(')')) fail("no ) where one belongs");
      return inner;
    }
    const std::string word = peek_word();
    if (word.empty()) fail("no number where one belongs");
    at_ += word.size();
    if (word == "pi") return of(boost::math::constants::pi<Real>());
    if (word == "e" && peek() != '(') return of(exp(Real(1)));
    return function(word);
  }

  // 1,234,567.89: commas that group by three count as nothing, but between a function's arguments
  // they part these.
  Number literal() {
    std::string digits;
    int64_t fraction = 0, exponent = 0;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (is_digit(c) || (c == '_' && !digits.empty())) {
        if (c != '_') digits += c;
        ++at_;
      } else if (c == ',' && in_function_ == 0 && groups_at(at_)) {
        ++at_;
      } else {
        break;
      }
    }
    if (at_ < text_.size() && text_[at_] == '.') {
      ++at_;
      while (at_ < text_.size() && is_digit(text_[at_])) {
        digits += text_[at_++];
        ++fraction;
      }
    }
    if (digits.empty()) fail("a point without digits");
    if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
      size_t end = at_ + 1;
      if (end < text_.size() && (text_[end] == '+' || text_[end] == '-')) ++end;
      const size_t first = end;
      while (end < text_.size() && is_digit(text_[end])) ++end;
      if (end > first) {
        if (end - first > 5) fail("an exponent that is too large");
        exponent = std::stoll(text_.substr(at_ + 1, end - at_ - 1));
        at_ = end;
      }
    }
    exponent -= fraction;
    if (std::abs(exponent) > 6000) fail("an exponent that is too large");
    const Integer scale = pow(Integer(10), static_cast<unsigned>(std::abs(exponent)));
    digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size() - 1));
    const Integer whole(digits);
    return checked({exponent < 0 ? Fraction(whole, scale) : Fraction(whole * scale)});
  }
  bool groups_at(size_t comma) const {
    size_t end = comma + 1;
    while (end < text_.size() && is_digit(text_[end])) ++end;
    return end - comma - 1 == 3;
  }

  static Real real(const Fraction& value) {
    return Real(numerator(value)) / Real(denominator(value));
  }
  Number of(const Real& value) const {
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

  static Fraction floor_of(const Fraction& value) {
    const Integer top = numerator(value), bottom = denominator(value);
    Integer whole = top / bottom;
    if (top < 0 && whole * bottom != top) --whole;
    return Fraction(whole);
  }
  static bool is_whole(const Fraction& value) { return denominator(value) == 1; }

  Number raise(const Number& base, const Number& exponent) const {
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
    Number out = of(pow(real(base.value), real(exponent.value)));
    return exact_root(base.value, exponent.value, out);
  }
  // out^(1/exponent) = base, where both are small enough to tell.
  Number exact_root(const Fraction& base, const Fraction& exponent, Number out) const {
    if (numerator(exponent) != 1 || denominator(exponent) > 64) return out;
    const auto degree = static_cast<unsigned>(denominator(exponent));
    const Fraction scaled = out.value * 1000000;
    const Fraction near(nearest(numerator(scaled), denominator(scaled)), Integer(1000000));
    Fraction product = 1;
    for (unsigned i = 0; i < degree; ++i) product *= near;
    return product == base ? Number{near, false} : out;
  }
  // Half away from zero.
  static Integer nearest(const Integer& top, const Integer& bottom) {
    const Integer doubled = 2 * abs(top) + bottom;
    const Integer whole = doubled / (2 * bottom);
    return top < 0 ? -whole : whole;
  }

  Number factorial(const Number& number) const {
    if (!is_whole(number.value) || number.value < 0 || number.value > 1000) {
      throw_bad_input("! takes a whole number from 0 to 1000");
    }
    Integer out = 1;
    for (int i = 2; i <= static_cast<int>(numerator(number.value)); ++i) out *= i;
    return {Fraction(out), number.rounded};
  }

  std::vector<Number> arguments(const std::string& name) {
    std::vector<Number> out;
    if (!take('(')) {  // sqrt 2, square root of 16
      if (name == "sqrt") return {unary()};
      fail("the word '" + name + "', which is no function of this calculator,");
    }
    ++in_function_;
    if (!take(')')) {
      do {
        out.push_back(sum());
        if (out.size() > 1000) fail("too many arguments");
      } while (take(',') || take(';'));
      if (!take(')')) fail("no ) where one belongs");
    }
    --in_function_;
    return out;
  }

  using Transcendental = std::function<Real(const Real&)>;
  static const std::map<std::string, Transcendental>& transcendentals() {
    static const std::map<std::string, Transcendental> kAll = {
        {"exp", [](const Real& x) -> Real { return exp(x); }},
        {"ln", [](const Real& x) -> Real { return log(x); }},
        {"log10", [](const Real& x) -> Real { return log10(x); }},
        {"log2", [](const Real& x) -> Real { return log(x) / log(Real(2)); }},
        {"sin", [](const Real& x) -> Real { return sin(x); }},
        {"cos", [](const Real& x) -> Real { return cos(x); }},
        {"tan", [](const Real& x) -> Real { return tan(x); }},
        {"asin", [](const Real& x) -> Real { return asin(x); }},
        {"acos", [](const Real& x) -> Real { return acos(x); }},
        {"atan", [](const Real& x) -> Real { return atan(x); }}};
    return kAll;
  }

  Number function(const std::string& given) {
    std::string name = given;
    for (char& c : name) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    }
    static const std::vector<std::string> kNames = {
        "sqrt", "cbrt", "abs", "round", "floor", "ceil", "min",   "max",
        "sum",  "mean", "avg", "exp",   "ln",    "log",  "log10", "log2",
        "sin",  "cos",  "tan", "asin",  "acos",  "atan", "gcd",   "lcm"};
    if (std::ranges::find(kNames, name) == kNames.end()) {
      at_ -= given.size();
      const std::string guess = quern::nearest(name, kNames);
      fail("a word that is not known" + (guess.empty() ? "" : " (did you mean " + guess + "?)"));
    }
    const std::vector<Number> args = arguments(name);
    const auto need = [&](size_t least, size_t most) {
      if (args.size() < least || args.size() > most) {
        throw_bad_input(fmt::format("{} takes {} arguments, here are {}", name,
                                    least == most ? fmt::format("{}", least) : "other",
                                    args.size()));
      }
    };
    bool rounded = false;
    for (const Number& arg : args) rounded |= arg.rounded;
    if (name == "log" && args.size() == 2) {
      if (args[0].value <= 0 || args[1].value <= 0 || args[1].value == 1) {
        throw_bad_input("a logarithm takes positive numbers, and no base of 1");
      }
      return of(log(real(args[0].value)) / log(real(args[1].value)));
    }
    if (name == "log") name = "log10";
    if (const auto found = transcendentals().find(name); found != transcendentals().end()) {
      need(1, 1);
      const Fraction& x = args[0].value;
      if ((name == "ln" || name == "log10" || name == "log2") && x <= 0) {
        throw_bad_input("a logarithm takes positive numbers");
      }
      if ((name == "asin" || name == "acos") && abs(x) > 1) {
        throw_bad_input(name + " takes numbers from -1 to 1");
      }
      if (name == "exp" && abs(x) > 11000)
        throw_bad_input("exp takes numbers from -11000 to 11000");
      if (abs(x) > Fraction(Integer("1000000000000000000000000000000")) &&
          (name == "sin" || name == "cos" || name == "tan")) {
        throw_bad_input(name + " takes numbers of at most 30 digits");
      }
      Number out = of(found->second(real(x)));
      // What is whole to 40 digits is whole: log10(1000), sin(0).
      const Integer near = whole_near(out.value);
      if (abs(out.value - Fraction(near)) < Fraction(Integer(1), pow(Integer(10), 40u))) {
        out = {Fraction(near), rounded};
      }
      return out;
    }
    if (name == "sqrt" || name == "cbrt") {
      need(1, 1);
      const bool negative = args[0].value < 0;
      if (negative && name == "sqrt") throw_bad_input("a negative number has no square root");
      Number out = raise({abs(args[0].value), rounded},
                         {Fraction(Integer(1), Integer(name == "sqrt" ? 2 : 3)), false});
      if (negative) out.value = -out.value;
      return out;
    }
    if (name == "round") {
      need(1, 2);
      const Fraction places = args.size() == 2 ? args[1].value : Fraction(0);
      if (!is_whole(places) || abs(places) > 100) throw_bad_input("round takes -100 to 100 places");
      const int count = static_cast<int>(numerator(places));
      const Integer scale = pow(Integer(10), static_cast<unsigned>(std::abs(count)));
      const Fraction factor = count < 0 ? Fraction(Integer(1), scale) : Fraction(scale);
      return {Fraction(whole_near(args[0].value * factor)) / factor, false};
    }
    if (name == "abs" || name == "floor" || name == "ceil") {
      need(1, 1);
      const Fraction& x = args[0].value;
      if (name == "abs") return {abs(x), rounded};
      return {name == "floor" ? floor_of(x) : Fraction(-floor_of(-x)), false};
    }
    need(1, 1000);
    if (name == "gcd" || name == "lcm") {
      Integer out = 0;
      for (const Number& arg : args) {
        if (!is_whole(arg.value)) throw_bad_input(name + " takes whole numbers");
        const Integer whole = numerator(arg.value);
        out = &arg == args.data() ? Integer(abs(whole))
              : name == "gcd"     ? Integer(gcd(out, whole))
                                  : Integer(lcm(out, whole));
      }
      return checked({Fraction(out), rounded});
    }
    Number out = args[0];
    for (size_t i = 1; i < args.size(); ++i) {
      const Fraction& x = args[i].value;
      if (name == "min") {
        if (x < out.value) out.value = x;
      } else if (name == "max") {
        if (x > out.value) out.value = x;
      } else {
        out.value += x;
      }
    }
    if (name == "mean" || name == "avg") out.value /= static_cast<int>(args.size());
    out.rounded = rounded;
    return checked(out);
  }
  static Integer whole_near(const Fraction& x) { return nearest(numerator(x), denominator(x)); }

  std::string text_;
  size_t at_ = 0;
  int depth_ = 0, in_function_ = 0;
};

// All decimals of a fraction that has finitely many, up to 60; else 20 significant digits.
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

class CalculatorTool : public Tool {
 public:
  CalculatorTool() : Tool(make_spec()) {}
  ToolResult call(const OrderedJson& arguments, const CallContext&) override {
    return {calculate(text_argument(arguments, "expression"))};
  }

 private:
  static ToolSpec make_spec() {
    ToolSpec spec;
    spec.name = "calculator";
    spec.description =
        "Exact arithmetic: + - * / ^ ( ), percent, sqrt, round, min, max, log, sin and more.";
    spec.parameters = object_schema(
        R"({"expression": {"type": "string", "description": "for example 15% of 80 + 2^3"}})",
        {"expression"});
    spec.timeout_s = 5;
    spec.origin = "built in";
    const auto example = [&](const char* query, const char* expression, const char* result,
                             const char* answer) {
      OrderedJson arguments;
      arguments.set("expression", OrderedJson::of_string(expression));
      spec.examples.push_back({query, std::move(arguments), result, answer});
    };
    example("What is 12% of 250 plus 7?", "12% of 250 plus 7", "37", "37");
    example("How much is 48 times 3.5?", "48 times 3.5", "168", "168");
    // A sign and a fraction of a percent: small models drop what they have seen no example of.
    example("What is 7.5% of 160 minus 300?", "7.5% of 160 minus 300", "-288", "-288");
    return spec;
  }
};

}  // namespace

std::string calculate(std::string_view expression) {
  return decimal_text(Calculator(expression).run());
}

std::unique_ptr<Tool> make_calculator() { return std::make_unique<CalculatorTool>(); }

}  // namespace quern
