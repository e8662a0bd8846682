// A recursive descent over the expression, in exact fractions.
#include <fmt/format.h>

#include <boost/math/constants/constants.hpp>
#include <functional>
#include <map>

#include "core/ascii.h"
#include "core/error.h"
#include "tools/builtin.h"
#include "tools/exact_number.h"

namespace quern {
namespace {

using namespace exact;  // NOLINT: its numbers are what all of this is about

constexpr size_t kMaxExpression = 4096;
constexpr int kMaxDepth = 100;

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
      if (ascii_lower(c) != word[i]) return false;
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
    if (word == "pi") return rounded_number(boost::math::constants::pi<Real>());
    if (word == "e" && peek() != '(') return rounded_number(exp(Real(1)));
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
    std::string name = ascii_lower(given);
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
        throw_bad_input(fmt::format(
            "{} takes {} arguments, here are {}", name,
            least == most ? fmt::format("{}", least) : fmt::format("{} to {}", least, most),
            args.size()));
      }
    };
    bool rounded = false;
    for (const Number& arg : args) rounded |= arg.rounded;
    if (name == "log" && args.size() == 2) {
      if (args[0].value <= 0 || args[1].value <= 0 || args[1].value == 1) {
        throw_bad_input("a logarithm takes positive numbers, and no base of 1");
      }
      return rounded_number(log(real(args[0].value)) / log(real(args[1].value)));
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
      Number out = rounded_number(found->second(real(x)));
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
  std::string text_;
  size_t at_ = 0;
  int depth_ = 0, in_function_ = 0;
};

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
