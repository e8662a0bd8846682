// Random numbers that depend on a seed and a counter, never on threads: Philox 4x32-10 (Salmon,
// Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011).
#pragma once

#include <array>
#include <cstdint>

namespace quern {

// Four random words for a counter under a key: the same on every machine.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter,
                               std::array<uint32_t, 2> key) noexcept;

// A stream of random numbers: (seed, stream) names it, `position` is where it stands. The three
// numbers are its whole state.
class Rng {
 public:
  explicit Rng(uint64_t seed, uint64_t stream = 0) noexcept : seed_(seed), stream_(stream) {}

  uint32_t next_u32() noexcept;
  uint64_t next_u64() noexcept;
  double uniform() noexcept;                // [0, 1), 53 bits
  double normal() noexcept;                 // mean 0, deviation 1 (Box-Muller)
  uint64_t below(uint64_t bound) noexcept;  // [0, bound), without bias; bound > 0

  uint64_t position() const noexcept { return position_; }
  void seek(uint64_t position) noexcept { position_ = position; }

 private:
  uint64_t seed_;
  uint64_t stream_;
  uint64_t position_ = 0;  // in 32-bit words
};

}  // namespace quern
