// Hashed n-grams of characters and words: what linear classifiers of texts read.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "core/json.h"

namespace quern {

struct FeatureOptions {
  int char_least = 1, char_most = 5;  // characters of an n-gram; char_most 0: none
  int word_least = 1, word_most = 2;  // words, runs of two or more letters, digits and marks
  int bucket_bits = 0;                // hashes are taken modulo 2^bits; 0: as they are, 32 bits
  // How counts become values. TfIdf: 1 + ln(count), times the inverse document frequency, the two
  // kinds of n-grams each of length 1 (as scikit-learn's TfidfVectorizer with sublinear_tf).
  // Counts: counts divided by the root of their sum, so that long texts count for more.
  enum class Values : uint8_t { TfIdf, Counts } values = Values::TfIdf;

  bool operator==(const FeatureOptions&) const = default;
};
nlohmann::ordered_json to_json(const FeatureOptions& options);
FeatureOptions features_from_json(const Json& json);  // Throws BadInput.

// N-grams of one text: their hashes and how often they occur, in the order of the hashes.
struct NGrams {
  std::vector<std::pair<uint32_t, uint32_t>> chars, words;
};

// Reads texts of one thread one after another. Text is taken in lower case (Unicode's simple
// mapping), runs of white space as one space, digits as they are.
class NGramReader {
 public:
  explicit NGramReader(const FeatureOptions& options) : options_(options) {}

  void read(std::string_view text, NGrams& out);
  // The hashes of all n-grams as they come, without counting them.
  const std::vector<uint32_t>& hashes(std::string_view text);

 private:
  void normalize(std::string_view text);
  void char_hashes(std::vector<uint32_t>& out) const;
  void word_hashes(std::vector<uint32_t>& out) const;
  uint32_t bucket(uint64_t hash) const noexcept;

  FeatureOptions options_;
  std::vector<char32_t> points_;
  std::vector<uint32_t> hashes_;
};

}  // namespace quern
