#include "data/stages/minhash.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/rng.h"
#include "data/stages/words.h"

namespace quern {
namespace {

// minima[i] = min over shingles of multipliers[i] * shingle + offsets[i], modulo 2^64. One body,
// compiled for each instruction set: the results are the same integers.
using MinimaFn = void (*)(std::span<uint64_t> minima, std::span<const uint64_t> shingles,
                          const uint64_t* multipliers, const uint64_t* offsets);

[[gnu::always_inline]] inline void minima_body(std::span<uint64_t> minima,
                                               std::span<const uint64_t> shingles,
                                               const uint64_t* multipliers,
                                               const uint64_t* offsets) {
  uint64_t* out = minima.data();
  const size_t count = minima.size();
  for (const uint64_t shingle : shingles) {
    for (size_t i = 0; i < count; ++i) {
      const uint64_t value = shingle * multipliers[i] + offsets[i];
      out[i] = value < out[i] ? value : out[i];
    }
  }
}

void minima_plain(std::span<uint64_t> minima, std::span<const uint64_t> shingles,
                  const uint64_t* multipliers, const uint64_t* offsets) {
  minima_body(minima, shingles, multipliers, offsets);
}
[[gnu::target("avx2")]] void minima_avx2(std::span<uint64_t> minima,
                                         std::span<const uint64_t> shingles,
                                         const uint64_t* multipliers, const uint64_t* offsets) {
  minima_body(minima, shingles, multipliers, offsets);
}
[[gnu::target("avx512f,avx512dq")]] void minima_avx512(std::span<uint64_t> minima,
                                                       std::span<const uint64_t> shingles,
                                                       const uint64_t* multipliers,
                                                       const uint64_t* offsets) {
  minima_body(minima, shingles, multipliers, offsets);
}

MinimaFn fastest_minima() {
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return minima_avx512;
  return __builtin_cpu_supports("avx2") ? minima_avx2 : minima_plain;
}

}  // namespace

double minhash_probability(double s, const MinHashOptions& options) {
  return 1 - std::pow(1 - std::pow(s, options.rows), options.bands);
}

MinHasher::MinHasher(const MinHashOptions& options) : options_(options) {
  const auto count = static_cast<size_t>(options.bands) * static_cast<size_t>(options.rows);
  Rng random(options.seed);
  for (size_t i = 0; i < count; ++i) {
    multipliers_.push_back(random.next_u64() | 1);
    offsets_.push_back(random.next_u64());
  }
  minima_.resize(count);
  bands_.resize(static_cast<size_t>(options.bands));
}

std::span<const uint64_t> MinHasher::bands(std::string_view text) {
  words_.clear();
  shingles_.clear();
  shingle_words(text, words_);
  const auto width = static_cast<size_t>(options_.shingle);
  if (words_.size() <= width) {
    shingles_.push_back(XXH3_64bits(words_.data(), words_.size() * sizeof(uint64_t)));
  }
  for (size_t i = 0; words_.size() > width && i + width <= words_.size(); ++i) {
    shingles_.push_back(XXH3_64bits(words_.data() + i, width * sizeof(uint64_t)));
  }
  std::ranges::sort(shingles_);
  shingles_.erase(std::unique(shingles_.begin(), shingles_.end()), shingles_.end());

  static const MinimaFn minima = fastest_minima();
  std::ranges::fill(minima_, std::numeric_limits<uint64_t>::max());
  minima(minima_, shingles_, multipliers_.data(), offsets_.data());
  const auto rows = static_cast<size_t>(options_.rows);
  for (size_t band = 0; band < bands_.size(); ++band) {
    bands_[band] =
        XXH3_64bits_withSeed(minima_.data() + band * rows, rows * sizeof(uint64_t), band);
  }
  return bands_;
}

double jaccard(std::span<const uint64_t> a, std::span<const uint64_t> b) noexcept {
  size_t common = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (a[i] == b[j]) {
      ++common;
      ++i;
      ++j;
    } else if (a[i] < b[j]) {
      ++i;
    } else {
      ++j;
    }
  }
  const size_t all = a.size() + b.size() - common;
  return all == 0 ? 1 : static_cast<double>(common) / static_cast<double>(all);
}

}  // namespace quern
