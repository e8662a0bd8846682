// Near-duplicates by MinHash and locality-sensitive hashing (Broder 1997; Leskovec, Rajaraman and
// Ullman, Mining of Massive Datasets, chapter 3): documents whose sets of word 5-grams have a high
// Jaccard similarity share a band of their signatures with probability 1 - (1 - s^rows)^bands.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace quern {

struct MinHashOptions {
  int bands = 14, rows = 8;
  int shingle = 5;  // words
  uint64_t seed = 1;
};

// Probability that a pair of similarity `s` shares a band.
double minhash_probability(double s, const MinHashOptions& options);

// Computes signatures of one text after another; keeps its buffers.
class MinHasher {
 public:
  explicit MinHasher(const MinHashOptions& options);

  // A hash for each band of `text`'s signature. Texts of fewer words than a shingle are one shingle.
  std::span<const uint64_t> bands(std::string_view text);
  // The distinct shingles of the last text, sorted: for the true Jaccard similarity.
  std::span<const uint64_t> shingles() const noexcept { return shingles_; }

 private:
  MinHashOptions options_;
  std::vector<uint64_t> multipliers_, offsets_;  // of the permutations
  std::vector<uint64_t> words_, shingles_, minima_, bands_;
};

// |a ∩ b| / |a ∪ b| of two sorted sets; 1 for two empty ones.
double jaccard(std::span<const uint64_t> a, std::span<const uint64_t> b) noexcept;

}  // namespace quern
