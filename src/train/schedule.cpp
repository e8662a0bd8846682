#include "train/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"

namespace quern {

Decline parse_decline(std::string_view name, std::string_view source) {
  if (name == "cosine") return Decline::Cosine;
  if (name == "linear") return Decline::Linear;
  if (name == "constant") return Decline::Constant;
  throw_bad_input(
      fmt::format("{}: is '{}', expected cosine, linear or constant", source, printable(name, 40)));
}

double Schedule::share_at(int64_t done) const noexcept {
  if (done < warmup) return static_cast<double>(done) / static_cast<double>(warmup);
  if (decline == Decline::Constant) return 1;
  const double way = std::min(1.0, static_cast<double>(done - warmup) /
                                       static_cast<double>(std::max<int64_t>(1, total - warmup)));
  const double down =
      decline == Decline::Linear ? 1 - way : 0.5 * (1 + std::cos(std::numbers::pi * way));
  return floor + (1 - floor) * down;
}

}  // namespace quern
