// Numbers of a schema, exactly as they are written, and the texts of the numbers between two.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <vector>

#include "grammar/grammar.h"

namespace quern {

// digits * 10^exponent, with a sign.
struct Decimal {
  bool negative = false;
  uint64_t digits = 0;
  int exponent = 0;

  // The shortest decimal that reads as the number.
  static Decimal of(const nlohmann::ordered_json& number);
  // floor(this * 10^shift), and whether that is exact. Ends at +-kHuge.
  static constexpr int64_t kHuge = 4'000'000'000'000'000'000;
  struct Scaled {
    int64_t floor;
    bool exact;
  };
  Scaled scaled(int shift) const;
  double value() const;
};

struct NumberBounds {
  struct Bound {
    Decimal at;
    bool open = false;  // the bound itself is left out
  };
  std::optional<Bound> least, most;
  std::vector<Decimal> multiples;  // of all of which the numbers are multiples

  bool any() const { return least || most || !multiples.empty(); }
};

// No number is in both: certain where it says true.
bool are_apart(const NumberBounds& a, const NumberBounds& b);
bool is_within(const nlohmann::ordered_json& number, const NumberBounds& bounds);

// The integers, or decimals of at most 15 digits, within the bounds. Throws BadInput naming the
// keyword that leaves nothing or too much to be kept to.
Grammar::Symbol numbers_within(Grammar& grammar, const NumberBounds& bounds, bool integers);

}  // namespace quern
