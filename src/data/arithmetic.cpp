#include "data/arithmetic.h"

#include <charconv>
#include <cmath>
#include <string>

namespace quern {
namespace {

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

// Grammar of the Python reference, section 6: sums of products of signed powers.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::optional<double> all() {
    const double value = sum();
    skip_space();
    if (failed_ || at_ != text_.size() || !std::isfinite(value)) return std::nullopt;
    return value;
  }

 private:
  static constexpr int kMaxDepth = 200;

  void skip_space() noexcept {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\f' ||
                                  (text_[at_] == '\n' && depth_ > 0))) {
      ++at_;
    }
  }
  bool take(std::string_view word) {
    skip_space();
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  double fail() {
    failed_ = true;
    return 0;
  }

  double sum() {
    double value = product();
    while (!failed_) {
      if (take("+")) {
        value += product();
      } else if (take("-")) {
        value -= product();
      } else {
        break;
      }
    }
    return value;
  }

  double product() {
    double value = signed_power();
    while (!failed_) {
      skip_space();
      if (text_.substr(at_).starts_with("**")) break;
      if (take("*")) {
        value *= signed_power();
        continue;
      }
      const bool floor = take("//"), divide = floor || take("/");
      if (!divide && !take("%")) break;
      const double by = signed_power();
      if (by == 0) return fail();
      if (divide) {
        value = floor ? std::floor(value / by) : value / by;
      } else {
        value = value - by * std::floor(value / by);
      }
    }
    return value;
  }

  double signed_power() {
    if (++nested_ > kMaxDepth) return fail();
    double value = 0;
    if (take("-")) {
      value = -signed_power();
    } else if (take("+")) {
      value = signed_power();
    } else {
      value = atom();
      if (!failed_ && take("**")) value = power(value, signed_power());
    }
    --nested_;
    return value;
  }

  double power(double base, double exponent) {
    // A negative number to a fraction is a complex one.
    if ((base == 0 && exponent < 0) || (base < 0 && exponent != std::floor(exponent))) {
      return fail();
    }
    return std::pow(base, exponent);
  }

  double atom() {
    if (take("(")) {
      ++depth_;
      const double value = sum();
      if (!take(")")) return fail();
      --depth_;
      return value;
    }
    return number();
  }

  // Digits that may be parted by single underscores.
  void digits(std::string& out) {
    while (at_ < text_.size()) {
      if (is_digit(text_[at_])) {
        out += text_[at_++];
      } else if (text_[at_] == '_' && !out.empty() && is_digit(out.back()) &&
                 at_ + 1 < text_.size() && is_digit(text_[at_ + 1])) {
        ++at_;
      } else {
        break;
      }
    }
  }

  double number() {
    skip_space();
    std::string word;
    digits(word);
    const bool whole = !word.empty();
    const bool zero_led =
        word.size() > 1 && word[0] == '0' && word.find_first_not_of('0') != std::string::npos;
    bool fraction = false;
    if (at_ < text_.size() && text_[at_] == '.') {
      fraction = true;
      ++at_;
      word += '.';
      digits(word);
    }
    if (!whole && word.size() < 2) return fail();
    if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
      fraction = true;
      word += 'e';
      ++at_;
      if (at_ < text_.size() && (text_[at_] == '+' || text_[at_] == '-')) word += text_[at_++];
      if (at_ >= text_.size() || !is_digit(text_[at_])) return fail();
      digits(word);
    }
    if (zero_led && !fraction) return fail();  // 012 is no literal
    double value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size()) return fail();
    return value;
  }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0, nested_ = 0;
  bool failed_ = false;
};

std::string_view trim(std::string_view text, std::string_view space) noexcept {
  const size_t begin = text.find_first_not_of(space);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(space) + 1 - begin);
}

}  // namespace

std::optional<double> evaluate_arithmetic(std::string_view text) {
  return Parser(trim(text, " \t\n\r\f")).all();
}

std::optional<double> parse_python_float(std::string_view text) {
  text = trim(text, " \t\n\r\f\v");
  std::string word;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '_') {
      if (i == 0 || i + 1 == text.size() || !is_digit(text[i - 1]) || !is_digit(text[i + 1])) {
        return std::nullopt;
      }
      continue;
    }
    if (!is_digit(text[i]) && std::string_view("+-.eE").find(text[i]) == std::string_view::npos) {
      return std::nullopt;
    }
    word += text[i];
  }
  if (word.starts_with('+')) word.erase(0, 1);
  if (word.starts_with('+')) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

}  // namespace quern
