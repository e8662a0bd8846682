#include "evaluate/extract/numbers.h"

#include <cmath>

#include "core/python_text.h"
#include "core/utf8.h"
#include "evaluate/extract/regex.h"

namespace quern {
namespace {

// A Python literal of a number, unless it is none: leading zeros are refused before an integer.
std::optional<double> python_number(std::string_view text) {
  std::string_view digits = text;
  if (!digits.empty() && (digits[0] == '+' || digits[0] == '-')) digits.remove_prefix(1);
  if (digits.empty() || digits.find_first_not_of("0123456789.") != digits.npos) return {};
  if (digits.find('.') == digits.npos) {
    if (digits[0] == '0' && digits.find_first_not_of('0') != digits.npos) return {};
  } else if (digits == ".") {
    return {};
  }
  return std::strtod(std::string(text).c_str(), nullptr);
}

// Integers of any length are equal by their digits.
bool equal_numbers(const std::string& a, const std::string& b) {
  const auto x = python_number(a), y = python_number(b);
  if (!x || !y) return false;
  const auto digits = [](std::string_view text) {
    const size_t first = text.find_first_not_of("+0");
    return first == text.npos ? std::string_view("0") : text.substr(first);
  };
  const bool whole = a.find('.') == a.npos && b.find('.') == b.npos;
  return whole && a[0] != '-' && b[0] != '-' ? digits(a) == digits(b) : *x == *y;
}

std::optional<std::string> without(const std::optional<python::Match>& match,
                                   std::string_view marks) {
  if (!match) return {};
  std::string out;
  for (const char c : match->group[0]) {
    if (marks.find(c) == marks.npos) out += c;
  }
  return out;
}

}  // namespace

std::string base_answer(std::string_view text) {
  for (const char* mark : {"<|endoftext|>", "\n\n\n", "\n\n", "Question:"}) {
    text = python::before(text, mark);
  }
  return std::string(text);
}

std::optional<std::string> base_number(std::string_view text) {
  static const python::Regex kDigits(R"(\d+)");
  const std::string answer = base_answer(text);
  return without(kDigits.last(answer), "");
}

std::optional<std::string> chat_number(std::string_view text) {
  // The sign; a digit or `.5` must follow; whole part; decimals; and no digit after.
  static const python::Regex kNumber(
      R"([+-]?(?=[0-9]|\.[0-9])(?:0|[1-9]\d{0,2}(?:,\d{3})*|\d+|)(?:\.\d*)?(?=\D|$))");
  return without(kNumber.last(text), ",+");
}

std::optional<std::string> fixed_number(std::string_view text) {
  static const python::Regex kNumber(
      R"((?:(?<![\p{L}\p{N})\]])-)?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?)"
      R"(|(?:(?<![\p{L}\p{N})\]])-)?\.[0-9]+)");
  std::string plain;
  for (const char32_t point : python::points(text)) {
    char32_t mapped = point;
    if (point >= U'０' && point <= U'９') mapped = point - U'０' + U'0';
    if (point == U'．') mapped = U'.';
    if (point == U'，') mapped = U',';
    if (point == U'－' || point == U'−') mapped = U'-';
    utf8::append(plain, mapped);
  }
  return without(kNumber.last(plain), ",");
}

bool same_number(const std::string& a, const std::string& b) {
  const auto x = python_number(a), y = python_number(b);
  return x && y && std::abs(*x - *y) <= 1e-4;
}

ItemVerdict judge_numbers(std::optional<std::string> parity, std::optional<std::string> fixed,
                          const std::string& gold) {
  ItemVerdict verdict;
  verdict.prediction = std::move(parity);
  verdict.prediction_fixed = std::move(fixed);
  verdict.correct = verdict.prediction && equal_numbers(*verdict.prediction, gold);
  // Leading zeros do no harm here.
  verdict.correct_fixed =
      verdict.prediction_fixed && std::abs(std::strtod(verdict.prediction_fixed->c_str(), nullptr) -
                                           std::strtod(gold.c_str(), nullptr)) <= 1e-4;
  return verdict;
}

}  // namespace quern
