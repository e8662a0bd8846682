// The learning rate of each step.
#pragma once

#include <cstdint>
#include <string_view>

namespace quern {

enum class Decline : uint8_t { Cosine, Linear, Constant };
// "cosine", "linear" or "constant". Throws BadInput for another word, naming `source`.
Decline parse_decline(std::string_view name, std::string_view source);

// A straight rise from 0 over `warmup` steps, then down from the peak to `floor` times the peak at
// step `total` (Loshchilov, Hutter, "SGDR", 2017, without restarts). The memo: cosine, floor 0.1.
struct Schedule {
  Decline decline = Decline::Cosine;
  double peak = 3e-4;
  double floor = 0.1;
  int64_t warmup = 0;
  int64_t total = 1;

  // Share of the peak after `done` of the steps: at(0) is 0 where there is a warm-up, at(total) is
  // the floor. Step number n, from 1, takes at(n), so that no step is lost on a rate of 0.
  double share_at(int64_t done) const noexcept;
  double rate_of_step(int64_t step) const noexcept { return peak * share_at(step); }
};

}  // namespace quern
