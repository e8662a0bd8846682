// A linear classifier of texts: one weight for each n-gram and label.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "data/classify/text_features.h"

namespace quern {

// The file: "QRNL", a version (uint32), the length of a JSON header (uint32), the header (labels,
// features, numbers of them), then hashes (uint32, ascending; not with buckets), inverse document
// frequencies (float32; with TfIdf), biases (float32 for each row), scales of rows (float32), weights
// (int16 or int8, a row for each label, by feature), and the XXH64 of all before. Little-endian.
class LinearModel {
 public:
  enum class Precision : uint8_t { Int8, Int16 };

  FeatureOptions features;
  std::string kind;                 // "quality", "toxic", "language": what it was trained for
  std::vector<std::string> labels;  // two: one row of weights, for the second
  double threshold = 0.5;           // of two labels: scores from here on are the second
  std::vector<uint32_t> hashes;     // ascending; empty with buckets
  std::vector<float> idf;           // by feature; empty with Counts
  std::vector<float> bias, scale;   // by row
  Precision precision = Precision::Int16;
  std::vector<int16_t> weights;  // [features][rows], whatever the precision of the file

  size_t rows() const noexcept { return labels.size() == 2 ? 1 : labels.size(); }
  size_t feature_count() const noexcept {
    return features.bucket_bits > 0 ? size_t{1} << features.bucket_bits : hashes.size();
  }

  // Throws BadInput naming the file: cut off, damaged, of a later version.
  static LinearModel load(const fs::path& path);
  static LinearModel parse(std::string_view bytes, const std::string& source);
  std::string bytes() const;
  void save(const fs::path& path) const;
};

// Scores texts of one thread one after another. The model must outlive it.
class LinearScorer {
 public:
  explicit LinearScorer(const LinearModel& model);

  // The probability of each label, in their order.
  std::span<const double> probabilities(std::string_view text);
  // Of two labels: that of the second.
  double score(std::string_view text) { return probabilities(text)[1]; }

 private:
  void add_kind(const std::vector<std::pair<uint32_t, uint32_t>>& ngrams);
  void add_counts(std::string_view text);
  void add_lanes(const std::vector<uint32_t>& hashes);

  static constexpr size_t kLanes = 32;  // labels whose weights are added at once

  const LinearModel& model_;
  NGramReader reader_;
  NGrams ngrams_;
  std::vector<int8_t> lanes_;  // [features, kLanes], of int8 buckets with no more labels than lanes
  std::vector<int32_t> sums_;
  std::vector<double> logits_, probabilities_;
};

// The feature of a hash; npos where the model knows none.
size_t feature_of(const LinearModel& model, uint32_t hash) noexcept;
// 1 + ln(count) times the inverse document frequency, of the n-grams that the model knows, divided by
// their length: (feature, value) pairs that add_kind and training share.
void tfidf_values(const LinearModel& model,
                  const std::vector<std::pair<uint32_t, uint32_t>>& ngrams,
                  std::vector<std::pair<uint32_t, float>>& out);

}  // namespace quern
