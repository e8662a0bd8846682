#include "data/classify/linear_model.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"

namespace quern {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint32_t kVersion = 1;
constexpr std::string_view kMagic = "QRNL";
constexpr uint64_t kMaxBytes = uint64_t{1} << 30;

template <class T>
void append(std::string& out, const std::vector<T>& values) {
  out.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}
void append(std::string& out, uint32_t value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// Takes values from the front of what is left of a file.
class Reader {
 public:
  Reader(std::string_view bytes, const std::string& source) : bytes_(bytes), source_(source) {}

  template <class T>
  std::vector<T> take(size_t count) {
    if (count > bytes_.size() / sizeof(T)) cut_off();
    std::vector<T> values(count);
    std::memcpy(values.data(), bytes_.data(), count * sizeof(T));
    bytes_.remove_prefix(count * sizeof(T));
    return values;
  }
  std::string_view text(size_t count) {
    if (count > bytes_.size()) cut_off();
    const std::string_view out = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return out;
  }
  bool empty() const noexcept { return bytes_.empty(); }

 private:
  [[noreturn]] void cut_off() const {
    throw_bad_input(source_ + ": is cut off", "train or download it again");
  }
  std::string_view bytes_;
  const std::string& source_;
};

}  // namespace

std::string LinearModel::bytes() const {
  const nlohmann::ordered_json header = {
      {"kind", kind},
      {"labels", labels},
      {"threshold", threshold},
      {"features", to_json(features)},
      {"count", feature_count()},
      {"precision", precision == Precision::Int8 ? "int8" : "int16"}};
  const std::string text = dump(header);
  std::string out(kMagic);
  append(out, kVersion);
  append(out, static_cast<uint32_t>(text.size()));
  out += text;
  append(out, hashes);
  append(out, idf);
  append(out, bias);
  append(out, scale);
  // A row for each label: neighbours in a row are alike where features are, which packs better.
  for (size_t row = 0; row < rows(); ++row) {
    for (size_t i = row; i < weights.size(); i += rows()) {
      if (precision == Precision::Int8) {
        out += static_cast<char>(weights[i]);
      } else {
        out.append(reinterpret_cast<const char*>(&weights[i]), 2);
      }
    }
  }
  const uint64_t sum = XXH64(out.data(), out.size(), 0);
  out.append(reinterpret_cast<const char*>(&sum), sizeof sum);
  return out;
}

void LinearModel::save(const fs::path& path) const { write_file(path, bytes()); }

LinearModel LinearModel::load(const fs::path& path) {
  return parse(read_file(path, kMaxBytes), path.string());
}

LinearModel LinearModel::parse(std::string_view bytes, const std::string& source) {
  if (!bytes.starts_with(kMagic)) {
    throw_bad_input(source + ": is no classifier of texts",
                    "quern data train-classifier and train-language make them");
  }
  uint64_t sum = 0;
  if (bytes.size() < kMagic.size() + 16) throw_bad_input(source + ": is cut off");
  std::memcpy(&sum, bytes.data() + bytes.size() - 8, 8);
  Reader reader(bytes.substr(kMagic.size(), bytes.size() - kMagic.size() - 8), source);
  const uint32_t version = reader.take<uint32_t>(1)[0];
  if (version != kVersion) {
    throw_bad_input(
        fmt::format("{}: has version {}, this program reads {}", source, version, kVersion));
  }
  if (XXH64(bytes.data(), bytes.size() - 8, 0) != sum) {
    throw_bad_input(source + ": is damaged: its checksum is another", "train or download it again");
  }
  const uint32_t length = reader.take<uint32_t>(1)[0];
  const Json header = Json::parse(reader.text(length), source);
  LinearModel model;
  model.kind = header.at("kind").string();
  for (const Json& label : header.at("labels").items()) model.labels.push_back(label.string());
  if (model.labels.size() < 2) header.fail("has fewer than two labels");
  model.threshold = header.at("threshold").number(0, 1);
  model.features = features_from_json(header.at("features"));
  const auto count = static_cast<size_t>(header.at("count").integer(1, int64_t{1} << 28));
  model.precision = header.at("precision").string() == "int8" ? Precision::Int8 : Precision::Int16;
  if (model.features.bucket_bits == 0) model.hashes = reader.take<uint32_t>(count);
  if (model.feature_count() != count) header.fail("counts other features than its buckets");
  if (!std::ranges::is_sorted(model.hashes)) throw_bad_input(source + ": hashes are not sorted");
  if (model.features.values == FeatureOptions::Values::TfIdf) model.idf = reader.take<float>(count);
  const size_t rows = model.rows();
  model.bias = reader.take<float>(rows);
  model.scale = reader.take<float>(rows);
  const auto finite = [](float value) { return std::isfinite(value); };
  if (!std::ranges::all_of(model.idf, finite) || !std::ranges::all_of(model.bias, finite) ||
      !std::ranges::all_of(model.scale, finite)) {
    throw_bad_input(source + ": holds a value that is not finite");
  }
  model.weights.resize(count * rows);
  for (size_t row = 0; row < rows; ++row) {
    if (model.precision == Precision::Int8) {
      const auto values = reader.take<int8_t>(count);
      for (size_t i = 0; i < count; ++i) model.weights[i * rows + row] = values[i];
    } else {
      const auto values = reader.take<int16_t>(count);
      for (size_t i = 0; i < count; ++i) model.weights[i * rows + row] = values[i];
    }
  }
  if (!reader.empty()) throw_bad_input(source + ": has bytes behind its end");
  return model;
}

size_t feature_of(const LinearModel& model, uint32_t hash) noexcept {
  if (model.features.bucket_bits > 0) return hash;
  const auto found = std::ranges::lower_bound(model.hashes, hash);
  if (found == model.hashes.end() || *found != hash) return SIZE_MAX;
  return static_cast<size_t>(found - model.hashes.begin());
}

void tfidf_values(const LinearModel& model,
                  const std::vector<std::pair<uint32_t, uint32_t>>& ngrams,
                  std::vector<std::pair<uint32_t, float>>& out) {
  const size_t begin = out.size();
  double squares = 0;
  for (const auto& [hash, count] : ngrams) {
    const size_t feature = feature_of(model, hash);
    if (feature == SIZE_MAX) continue;
    const double value =
        (1 + std::log(static_cast<double>(count))) * static_cast<double>(model.idf[feature]);
    squares += value * value;
    out.emplace_back(static_cast<uint32_t>(feature), static_cast<float>(value));
  }
  if (squares == 0) return;
  const auto length = static_cast<float>(std::sqrt(squares));
  for (size_t i = begin; i < out.size(); ++i) out[i].second /= length;
}

LinearScorer::LinearScorer(const LinearModel& model)
    : model_(model),
      reader_(model.features),
      sums_(model.rows()),
      logits_(model.rows()),
      probabilities_(model.labels.size()) {
  const size_t rows = model.rows();
  if (model.precision != LinearModel::Precision::Int8 || model.features.bucket_bits == 0 ||
      rows > kLanes) {
    return;
  }
  lanes_.resize(model.feature_count() * kLanes);
  for (size_t i = 0; i < model.feature_count(); ++i) {
    for (size_t row = 0; row < rows; ++row) {
      lanes_[i * kLanes + row] = static_cast<int8_t>(model.weights[i * rows + row]);
    }
  }
}

void LinearScorer::add_lanes(const std::vector<uint32_t>& hashes) {
  using Bytes [[gnu::vector_size(kLanes)]] = int8_t;
  using Shorts [[gnu::vector_size(2 * kLanes)]] = int16_t;
  constexpr size_t kBlock = 256;  // so many int8 fit the sum in an int16
  for (size_t begin = 0; begin < hashes.size(); begin += kBlock) {
    Shorts sums = {};
    const size_t end = std::min(hashes.size(), begin + kBlock);
    for (size_t i = begin; i < end; ++i) {
      Bytes weights;
      std::memcpy(&weights, &lanes_[hashes[i] * kLanes], kLanes);
      sums += __builtin_convertvector(weights, Shorts);
    }
    for (size_t row = 0; row < sums_.size(); ++row) sums_[row] += sums[row];
  }
}

void LinearScorer::add_kind(const std::vector<std::pair<uint32_t, uint32_t>>& ngrams) {
  thread_local std::vector<std::pair<uint32_t, float>> values;
  values.clear();
  tfidf_values(model_, ngrams, values);
  const size_t rows = model_.rows();
  for (const auto& [feature, value] : values) {
    for (size_t row = 0; row < rows; ++row) {
      logits_[row] +=
          static_cast<double>(value) * static_cast<double>(model_.weights[feature * rows + row]);
    }
  }
}

void LinearScorer::add_counts(std::string_view text) {
  const size_t rows = model_.rows();
  const std::vector<uint32_t>& hashes = reader_.hashes(text);
  std::ranges::fill(sums_, 0);
  if (!lanes_.empty()) {
    add_lanes(hashes);
  } else {
    for (const uint32_t hash : hashes) {
      const size_t feature = feature_of(model_, hash);
      if (feature == SIZE_MAX) continue;
      const int16_t* weights = &model_.weights[feature * rows];
      for (size_t row = 0; row < rows; ++row) sums_[row] += weights[row];
    }
  }
  if (hashes.empty()) return;
  const double root = std::sqrt(static_cast<double>(hashes.size()));
  for (size_t row = 0; row < rows; ++row) logits_[row] = static_cast<double>(sums_[row]) / root;
}

std::span<const double> LinearScorer::probabilities(std::string_view text) {
  std::ranges::fill(logits_, 0);
  if (model_.features.values == FeatureOptions::Values::TfIdf) {
    reader_.read(text, ngrams_);
    add_kind(ngrams_.chars);
    add_kind(ngrams_.words);
  } else {
    // int32 holds the sums of 65,536 weights.
    add_counts(text.substr(0, 8192));
  }
  for (size_t row = 0; row < logits_.size(); ++row) {
    logits_[row] = logits_[row] * static_cast<double>(model_.scale[row]) +
                   static_cast<double>(model_.bias[row]);
  }
  if (logits_.size() == 1) {
    probabilities_[1] = 1 / (1 + std::exp(-logits_[0]));
    probabilities_[0] = 1 - probabilities_[1];
    return probabilities_;
  }
  const double most = *std::ranges::max_element(logits_);
  double total = 0;
  for (size_t i = 0; i < logits_.size(); ++i) {
    total += probabilities_[i] = std::exp(logits_[i] - most);
  }
  for (double& p : probabilities_) p /= total;
  return probabilities_;
}

}  // namespace quern
