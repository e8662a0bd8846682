#include "grammar/decimal.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <tuple>

#include "core/error.h"

namespace quern {
namespace {

using Symbol = Grammar::Symbol;
using Sequence = Grammar::Sequence;

// Decimals of 15 digits are told apart by doubles; integers of 15 digits are doubles.
constexpr int64_t kMost = 999'999'999'999'999;
constexpr int64_t kMostRemainders = 500;  // that an automaton of digits counts with

int64_t power_of_ten(int exponent) {
  int64_t power = 1;
  for (int i = 0; i < exponent; ++i) power *= 10;
  return power;
}

// The decimals N / 10^point for the N from low to high that are multiples of m, 0 <= low.
class Digits {
 public:
  Digits(Grammar& grammar, int64_t m, int point) : g_(grammar), m_(m), point_(point) {}

  void add_to(uint32_t rule, const Sequence& before, int64_t low, int64_t high) {
    const auto length = [](int64_t n) { return static_cast<int>(fmt::format_int(n).size()); };
    // One digit stands before the point at least; more do not begin with a zero.
    const int fewest = std::max(point_ + 1, length(low));
    for (int n = fewest; n <= std::max(length(high), point_ + 1); ++n) {
      const int64_t first = n == point_ + 1 ? low : std::max(low, power_of_ten(n - 1));
      const int64_t last = n >= 19 ? high : std::min(high, power_of_ten(n) - 1);
      if (first > last) continue;
      low_ = fmt::format("{:0{}}", first, n);
      high_ = fmt::format("{:0{}}", last, n);
      bounded_.clear();
      if (const auto digits = rest({n, true, true, 0})) {
        Sequence all = before;
        all.push_back(*digits);
        g_.add(rule, all);
      }
    }
  }

 private:
  struct State {
    int left;              // digits to come
    bool at_low, at_high;  // what came is the bound's beginning
    int64_t remainder;
    auto operator<=>(const State&) const = default;
  };

  std::optional<Symbol> rest(const State& state) {
    if (state.left == 0) {
      if (state.remainder != 0) return std::nullopt;
      if (!nothing_) {
        const uint32_t rule = g_.new_rule();
        g_.add(rule, {});
        nothing_ = Grammar::of_rule(rule);
      }
      return nothing_;
    }
    auto& known = state.at_low || state.at_high ? bounded_ : free_;
    if (const auto found = known.find(state); found != known.end()) return found->second;
    const size_t at = low_.size() - static_cast<size_t>(state.left);
    const int from = state.at_low ? low_[at] - '0' : 0;
    const int to = state.at_high ? high_[at] - '0' : 9;
    std::map<State, ByteSet> ways;
    for (int digit = from; digit <= to; ++digit) {
      const State next = {state.left - 1, state.at_low && digit == from,
                          state.at_high && digit == to, (state.remainder * 10 + digit) % m_};
      ways[next].set(static_cast<size_t>('0' + digit));
    }
    std::vector<Sequence> list;
    for (const auto& [next, digits] : ways) {
      const auto after = rest(next);
      if (!after) continue;
      Sequence way;
      if (point_ > 0 && state.left == point_) way = g_.literal(".");
      way.push_back(g_.bytes(digits));
      way.push_back(*after);
      list.push_back(std::move(way));
    }
    std::optional<Symbol> out;
    if (!list.empty()) {
      const uint32_t rule = g_.new_rule();
      for (const Sequence& way : list) g_.add(rule, way);
      out = Grammar::of_rule(rule);
    }
    known[state] = out;
    return out;
  }

  Grammar& g_;
  int64_t m_;
  int point_;
  std::string low_, high_;
  std::map<State, std::optional<Symbol>> free_, bounded_;
  std::optional<Symbol> nothing_;
};

// What the bounds are for numbers of `point` digits behind the point, times 10^point.
struct Range {
  int64_t low, high;
  bool is_empty() const { return low > high; }
};
Range range_of(const NumberBounds& bounds, int point) {
  int64_t low = -kMost, high = kMost;
  if (bounds.least) {
    const auto [floor, exact] = bounds.least->at.scaled(point);
    low = floor + (exact && !bounds.least->open ? 0 : 1);
  }
  if (bounds.most) {
    const auto [floor, exact] = bounds.most->at.scaled(point);
    high = floor - (exact && bounds.most->open ? 1 : 0);
  }
  if (point > 0) return {std::max(low, -kMost), std::min(high, kMost)};
  // One bound beyond what is usual moves the other one along.
  if (!bounds.most && low > kMost) high = std::min(low, Decimal::kHuge) + kMost;
  if (!bounds.least && high < -kMost) low = std::max(high, -Decimal::kHuge) - kMost;
  return {low, high};
}

int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b > 0 ? 1 : 0); }
int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }

// The N / 10^point with N in the range, multiples of m.
void add_range(Grammar& grammar, uint32_t rule, Range range, int64_t m, int point) {
  // A multiple of 1000 ends in 000: only what stands before is counted.
  std::string zeros;
  while (point == 0 && m % 10 == 0) {
    m /= 10;
    range = {ceil_div(range.low, 10), floor_div(range.high, 10)};
    zeros += '0';
  }
  if (range.is_empty()) return;
  if (m > kMostRemainders) {
    const int64_t first = ceil_div(range.low, m), last = floor_div(range.high, m);
    if (point > 0 || last - first > 2000) {
      throw_bad_input(
          fmt::format("multipleOf with more than {} remainders and so many values "
                      "cannot be kept to here",
                      kMostRemainders));
    }
    for (int64_t n = first; n <= last; ++n) {
      grammar.add(rule, grammar.literal(fmt::format("{}{}", n * m, n == 0 ? "" : zeros)));
    }
    return;
  }
  const Sequence tail = grammar.literal(zeros);
  const auto add = [&](const Sequence& sign, int64_t low, int64_t high) {
    if (low > high) return;
    const uint32_t digits = grammar.new_rule();
    Digits(grammar, m, point).add_to(digits, {}, low, high);
    Sequence all = sign;
    all.push_back(Grammar::of_rule(digits));
    all.insert(all.end(), tail.begin(), tail.end());
    grammar.add(rule, all);
  };
  add(grammar.literal("-"), std::max<int64_t>(1, -range.high), -range.low);
  if (point == 0) {
    if (range.low <= 0 && range.high >= 0) grammar.add(rule, grammar.literal("0"));
    add({}, std::max<int64_t>(range.low, 1), range.high);
  } else {
    add({}, std::max<int64_t>(range.low, 0), range.high);
  }
}

// The least common multiple, as digits and how many of them stand behind the point.
struct Multiple {
  int64_t digits = 1;
  int point = 0;
};
Multiple common_multiple(const std::vector<Decimal>& multiples) {
  Multiple out;
  bool first = true;
  for (const Decimal& one : multiples) {
    const int point = std::max(0, -one.exponent);
    const auto too_fine = [] { throw_bad_input("multipleOf is too large or too fine"); };
    if (one.digits == 0 || one.negative) throw_bad_input("multipleOf is no positive number");
    if (point > 9 || one.exponent > 15) too_fine();
    const int both = std::max(point, out.point);
    const auto at = [&](const Decimal& d) { return d.scaled(both).floor; };
    const int64_t a = at(one), b = out.digits * power_of_ten(both - out.point);
    const int64_t common = first ? a : a / std::gcd(a, b) * b;
    if (a > kMost || b > kMost || common > kMost) too_fine();
    out = {common, both};
    first = false;
  }
  return out;
}

}  // namespace

Decimal Decimal::of(const nlohmann::ordered_json& number) {
  Decimal out;
  if (number.is_number_unsigned()) {
    out.digits = number.get<uint64_t>();
  } else if (number.is_number_integer()) {
    const auto value = number.get<int64_t>();
    out.negative = value < 0;
    out.digits = value < 0 ? ~static_cast<uint64_t>(value) + 1 : static_cast<uint64_t>(value);
  } else {
    // d.ddde[+-]dd
    const std::string text = fmt::format("{:.17e}", number.get<double>());
    std::string shortest = text;
    for (int precision = 0; precision < 17; ++precision) {
      const std::string fewer = fmt::format("{:.{}e}", number.get<double>(), precision);
      if (std::stod(fewer) == number.get<double>()) {
        shortest = fewer;
        break;
      }
    }
    const size_t e = shortest.find('e');
    std::string digits;
    int behind = 0;
    bool point = false;
    for (const char c : shortest.substr(0, e)) {
      if (c == '.') point = true;
      if (c < '0' || c > '9') continue;
      digits += c;
      behind += point ? 1 : 0;
    }
    out.negative = shortest[0] == '-';
    out.digits = std::stoull(digits);
    out.exponent = std::stoi(shortest.substr(e + 1)) - behind;
  }
  while (out.digits != 0 && out.digits % 10 == 0) {
    out.digits /= 10;
    ++out.exponent;
  }
  if (out.digits == 0) out = {};
  return out;
}

Decimal::Scaled Decimal::scaled(int shift) const {
  uint64_t size = digits;
  int by = digits == 0 ? 0 : exponent + shift;
  bool exact = true;
  for (; by > 0; --by) {
    if (size > static_cast<uint64_t>(kHuge) / 10) return {negative ? -kHuge : kHuge, true};
    size *= 10;
  }
  for (; by < 0 && size != 0; ++by) {
    exact = exact && size % 10 == 0;
    size /= 10;
  }
  if (size > static_cast<uint64_t>(kHuge)) return {negative ? -kHuge : kHuge, true};
  const auto value = static_cast<int64_t>(size);
  return {negative ? -value - (exact ? 0 : 1) : value, exact};
}

double Decimal::value() const {
  return std::stod(fmt::format("{}{}e{}", negative ? "-" : "", digits, exponent));
}

bool are_apart(const NumberBounds& a, const NumberBounds& b) {
  const auto below = [](const NumberBounds& low, const NumberBounds& high) {
    if (!low.most || !high.least) return false;
    const double end = low.most->at.value(), begin = high.least->at.value();
    return end < begin || (end == begin && (low.most->open || high.least->open));
  };
  return below(a, b) || below(b, a);
}

bool is_within(const nlohmann::ordered_json& number, const NumberBounds& bounds) {
  const auto value = number.get<double>();
  if (bounds.least) {
    const double least = bounds.least->at.value();
    if (bounds.least->open ? value <= least : value < least) return false;
  }
  if (bounds.most) {
    const double most = bounds.most->at.value();
    if (bounds.most->open ? value >= most : value > most) return false;
  }
  const Decimal decimal = Decimal::of(number);
  return std::ranges::all_of(bounds.multiples, [&](const Decimal& one) {
    const int shift = std::max({0, -one.exponent, -decimal.exponent});
    const auto a = decimal.scaled(shift), b = one.scaled(shift);
    const bool known = shift < 18 && std::abs(a.floor) < Decimal::kHuge && b.floor > 0;
    return known && a.floor % b.floor == 0;
  });
}

Symbol numbers_within(Grammar& grammar, const NumberBounds& bounds, bool integers) {
  const uint32_t rule = grammar.new_rule();
  const auto check = [](const Range& range) {
    if (range.low >= Decimal::kHuge || range.high <= -Decimal::kHuge) {
      throw_bad_input("minimum or maximum is beyond what can be kept to here");
    }
  };
  const auto cut = [](Range range) {  // to what has room to be calculated with
    return Range{std::max(range.low, -Decimal::kHuge), std::min(range.high, Decimal::kHuge)};
  };
  bool some = false;
  const auto add = [&](Range range, int64_t m, int point) {
    if (ceil_div(range.low, m) > floor_div(range.high, m)) return;
    some = true;
    add_range(grammar, rule, range, m, point);
  };
  const Range whole = range_of(bounds, 0);
  check(whole);
  if (!bounds.multiples.empty()) {
    const Multiple multiple = common_multiple(bounds.multiples);
    if (integers) {
      const int64_t scale = power_of_ten(multiple.point);
      add(cut(whole), multiple.digits / std::gcd(multiple.digits, scale), 0);
    } else {
      // With as many digits behind the point as the multiple has, or fewer.
      for (int point = 0; point <= multiple.point; ++point) {
        const int64_t scale = power_of_ten(multiple.point - point);
        add(point == 0 ? cut(whole) : range_of(bounds, point),
            multiple.digits / std::gcd(multiple.digits, scale), point);
      }
    }
    if (!some) throw_bad_input("multipleOf has no multiple between minimum and maximum");
  } else {
    add(cut(whole), 1, 0);
    // As many digits behind the point as are usual, and more where nothing fits otherwise.
    for (int point = 1; !integers && point <= (some ? 6 : 15); ++point) {
      add(range_of(bounds, point), 1, point);
    }
    if (!some) throw_bad_input("no number lies between minimum and maximum");
  }
  return Grammar::of_rule(rule);
}

}  // namespace quern
