#include "data/classify/train_linear.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <numeric>
#include <unordered_map>

#include "core/error.h"
#include "core/rng.h"

namespace quern {
namespace {

// Rows of (feature, value) pairs, one after the other.
struct SparseRows {
  std::vector<uint32_t> feature;
  std::vector<float> value;
  std::vector<size_t> begin = {0};

  size_t size() const noexcept { return begin.size() - 1; }
  void end_row() { begin.push_back(feature.size()); }
};

// Parts of the texts whose gradients are added up in order, whatever threads compute them.
constexpr size_t kParts = 16;

// The penalised loss of binary logistic regression.
class Objective {
 public:
  Objective(const SparseRows& rows, const std::vector<int>& labels, size_t features, double c,
            ThreadPool& pool)
      : rows_(rows),
        labels_(labels),
        features_(features),
        penalty_(1 / (c * static_cast<double>(rows.size()))),
        pool_(pool),
        partial_(kParts, std::vector<double>(features + 1)) {}

  size_t size() const noexcept { return features_ + 1; }  // weights, then the bias

  // The mean loss and penalty, and its gradient.
  double operator()(const std::vector<double>& w, std::vector<double>& gradient) {
    std::vector<double> losses(kParts);
    pool_.parallel_for(kParts, 1, [&](int64_t first, int64_t last, int) {
      for (int64_t part = first; part < last; ++part) {
        losses[size_t(part)] = part_loss(w, partial_[size_t(part)], size_t(part));
      }
    });
    const auto n = static_cast<double>(rows_.size());
    double squares = 0;
    for (size_t i = 0; i < size(); ++i) {
      double sum = 0;
      for (const auto& part : partial_) sum += part[i];
      gradient[i] = sum / n;
      if (i == features_) break;  // the bias bears no penalty
      gradient[i] += penalty_ * w[i];
      squares += w[i] * w[i];
    }
    return std::accumulate(losses.begin(), losses.end(), 0.0) / n + penalty_ * squares / 2;
  }

 private:
  double part_loss(const std::vector<double>& w, std::vector<double>& gradient, size_t part) const {
    std::ranges::fill(gradient, 0);
    const size_t first = rows_.size() * part / kParts, last = rows_.size() * (part + 1) / kParts;
    double loss = 0;
    for (size_t row = first; row < last; ++row) {
      double z = w[features_];
      for (size_t i = rows_.begin[row]; i < rows_.begin[row + 1]; ++i) {
        z += static_cast<double>(rows_.value[i]) * w[rows_.feature[i]];
      }
      const double margin = labels_[row] == 1 ? z : -z;
      loss += margin > 0 ? std::log1p(std::exp(-margin)) : -margin + std::log1p(std::exp(margin));
      const double slope = 1 / (1 + std::exp(-z)) - labels_[row];
      for (size_t i = rows_.begin[row]; i < rows_.begin[row + 1]; ++i) {
        gradient[rows_.feature[i]] += static_cast<double>(rows_.value[i]) * slope;
      }
      gradient[features_] += slope;
    }
    return loss;
  }

  const SparseRows& rows_;
  const std::vector<int>& labels_;
  size_t features_;
  double penalty_;
  ThreadPool& pool_;
  std::vector<std::vector<double>> partial_;
};

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// Minimises a convex function by L-BFGS with a backtracking line search.
std::vector<double> minimise(Objective& objective, const LinearTraining& options) {
  constexpr size_t kMemory = 10;
  constexpr double kTolerance = 1e-5, kArmijo = 1e-4;
  struct Step {
    std::vector<double> s, y;
    double inverse;
  };
  const size_t n = objective.size();
  std::vector<double> w(n), gradient(n), next(n), next_gradient(n), direction(n);
  std::deque<Step> steps;
  double loss = objective(w, gradient);
  for (int iteration = 0; iteration < options.iterations; ++iteration) {
    double largest = 0;
    for (const double g : gradient) largest = std::max(largest, std::abs(g));
    if (largest < kTolerance) break;
    direction = gradient;
    std::vector<double> alphas(steps.size());
    for (size_t i = steps.size(); i-- > 0;) {
      alphas[i] = steps[i].inverse * dot(steps[i].s, direction);
      for (size_t j = 0; j < n; ++j) direction[j] -= alphas[i] * steps[i].y[j];
    }
    if (!steps.empty()) {
      const Step& last = steps.back();
      const double gamma = 1 / (last.inverse * dot(last.y, last.y));
      for (double& d : direction) d *= gamma;
    }
    for (size_t i = 0; i < steps.size(); ++i) {
      const double beta = steps[i].inverse * dot(steps[i].y, direction);
      for (size_t j = 0; j < n; ++j) direction[j] += (alphas[i] - beta) * steps[i].s[j];
    }
    const double slope = -dot(direction, gradient);
    double rate = steps.empty() ? 1 / std::sqrt(dot(gradient, gradient)) : 1;
    double next_loss = loss;
    bool found = false;
    for (int halving = 0; halving < 40; ++halving, rate /= 2) {
      for (size_t j = 0; j < n; ++j) next[j] = w[j] - rate * direction[j];
      next_loss = objective(next, next_gradient);
      if (next_loss <= loss + kArmijo * rate * slope) {
        found = true;
        break;
      }
    }
    if (!found) break;  // as low as doubles go
    Step step{std::vector<double>(n), std::vector<double>(n), 0};
    for (size_t j = 0; j < n; ++j) {
      step.s[j] = next[j] - w[j];
      step.y[j] = next_gradient[j] - gradient[j];
    }
    const double curvature = dot(step.s, step.y);
    if (curvature > 0) {
      step.inverse = 1 / curvature;
      steps.push_back(std::move(step));
      if (steps.size() > kMemory) steps.pop_front();
    }
    const bool still = loss - next_loss < 1e-10 * std::abs(loss);
    std::swap(w, next);
    std::swap(gradient, next_gradient);
    loss = next_loss;
    options.on_iteration(iteration + 1, loss);
    if (still) break;
  }
  return w;
}

// Multinomial logistic regression online, by AdaGrad (Duchi, Hazan, Singer 2011): features are so many
// that a few passes over the texts, in an order drawn once for each pass, come close enough.
std::vector<double> descend(const SparseRows& rows, const std::vector<int>& labels, size_t features,
                            size_t outputs, const LinearTraining& options) {
  constexpr float kRate = 0.5f, kBegin = 1e-6f;
  const size_t size = (features + 1) * outputs;
  std::vector<float> w(size), squares(size, kBegin), z(outputs);
  const size_t bias = features * outputs;
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  Rng rng(/*seed=*/1);
  const auto step = [&](size_t at, float value) {
    float* weights = &w[at];
    float* sums = &squares[at];
    for (size_t k = 0; k < outputs; ++k) {
      const float gradient = value * z[k];
      sums[k] += gradient * gradient;
      weights[k] -= kRate * gradient / std::sqrt(sums[k]);
    }
  };
  for (int pass = 0; pass < options.passes; ++pass) {
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
    double loss = 0;
    for (const size_t row : order) {
      for (size_t k = 0; k < outputs; ++k) z[k] = w[bias + k];
      for (size_t i = rows.begin[row]; i < rows.begin[row + 1]; ++i) {
        const float* weights = &w[rows.feature[i] * outputs];
        for (size_t k = 0; k < outputs; ++k) z[k] += rows.value[i] * weights[k];
      }
      const auto own = static_cast<size_t>(labels[row]);
      const float most = *std::ranges::max_element(z);
      float total = 0;
      for (float& value : z) total += value = std::exp(value - most);
      for (float& value : z) value /= total;
      loss -= std::log(std::max(z[own], 1e-30f));
      z[own] -= 1;
      for (size_t i = rows.begin[row]; i < rows.begin[row + 1]; ++i) {
        step(rows.feature[i] * outputs, rows.value[i]);
      }
      step(bias, 1);
    }
    options.on_iteration(pass + 1, loss / static_cast<double>(rows.size()));
  }
  return {w.begin(), w.end()};
}

// The n-grams that enough texts have, and how rare they are (smoothed as scikit-learn does).
void choose_features(const std::vector<NGrams>& ngrams, int least_texts, LinearModel& model) {
  if (model.features.bucket_bits == 0) {
    std::unordered_map<uint32_t, uint32_t> texts;
    for (const NGrams& text : ngrams) {
      for (const auto* kind : {&text.chars, &text.words}) {
        for (const auto& [hash, count] : *kind) ++texts[hash];
      }
    }
    for (const auto& [hash, count] : texts) {
      if (count >= static_cast<uint32_t>(least_texts)) model.hashes.push_back(hash);
    }
    std::ranges::sort(model.hashes);
  }
  if (model.features.values != FeatureOptions::Values::TfIdf) return;
  std::vector<uint32_t> texts(model.feature_count());
  for (const NGrams& text : ngrams) {
    for (const auto* kind : {&text.chars, &text.words}) {
      for (const auto& [hash, count] : *kind) {
        const size_t feature = feature_of(model, hash);
        if (feature != SIZE_MAX) ++texts[feature];
      }
    }
  }
  for (const uint32_t count : texts) {
    model.idf.push_back(static_cast<float>(
        std::log((1 + static_cast<double>(ngrams.size())) / (1 + static_cast<double>(count))) + 1));
  }
}

void append_row(const LinearModel& model, const NGrams& ngrams, SparseRows& rows) {
  std::vector<std::pair<uint32_t, float>> values;
  if (model.features.values == FeatureOptions::Values::TfIdf) {
    tfidf_values(model, ngrams.chars, values);
    tfidf_values(model, ngrams.words, values);
  } else {
    uint64_t total = 0;
    for (const auto* kind : {&ngrams.chars, &ngrams.words}) {
      for (const auto& [hash, count] : *kind) total += count;
    }
    const double root = std::sqrt(static_cast<double>(std::max<uint64_t>(total, 1)));
    for (const auto* kind : {&ngrams.chars, &ngrams.words}) {
      for (const auto& [hash, count] : *kind) {
        const size_t feature = feature_of(model, hash);
        if (feature == SIZE_MAX) continue;
        values.emplace_back(static_cast<uint32_t>(feature),
                            static_cast<float>(static_cast<double>(count) / root));
      }
    }
  }
  for (const auto& [feature, value] : values) {
    rows.feature.push_back(feature);
    rows.value.push_back(value);
  }
  rows.end_row();
}

// Weights as integers, a scale for each row.
void round_weights(const std::vector<double>& w, LinearModel& model) {
  const size_t rows = model.rows(), features = model.feature_count();
  const double most = model.precision == LinearModel::Precision::Int8 ? 127 : 32767;
  model.weights.resize(features * rows);
  for (size_t row = 0; row < rows; ++row) {
    double largest = 0;
    for (size_t i = 0; i < features; ++i) largest = std::max(largest, std::abs(w[i * rows + row]));
    const double scale = largest > 0 ? largest / most : 1;
    model.scale.push_back(static_cast<float>(scale));
    model.bias.push_back(static_cast<float>(w[features * rows + row]));
    for (size_t i = 0; i < features; ++i) {
      model.weights[i * rows + row] = static_cast<int16_t>(std::lround(w[i * rows + row] / scale));
    }
  }
}

}  // namespace

LinearModel train_linear(const std::vector<LabelledText>& texts, std::vector<std::string> labels,
                         const LinearTraining& options, ThreadPool& pool) {
  LinearModel model;
  model.features = options.features;
  model.labels = std::move(labels);
  model.precision = options.precision;
  std::vector<int64_t> counts(model.labels.size());
  for (const LabelledText& text : texts) ++counts[size_t(text.label)];
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > 0) continue;
    throw_bad_input(fmt::format("no text has the label '{}'", printable(model.labels[i], 60)),
                    "a classifier needs texts of each label");
  }
  std::vector<NGrams> ngrams(texts.size());
  pool.parallel_for(static_cast<int64_t>(texts.size()), 64, [&](int64_t first, int64_t last, int) {
    NGramReader reader(options.features);
    for (int64_t i = first; i < last; ++i) {
      reader.read(texts[size_t(i)].text, ngrams[size_t(i)]);
    }
  });
  choose_features(ngrams, options.least_texts, model);
  if (model.feature_count() == 0) {
    throw_bad_input("the texts have no n-gram in common", "give more of them");
  }
  SparseRows rows;
  std::vector<int> row_labels;
  for (size_t i = 0; i < texts.size(); ++i) {
    append_row(model, ngrams[i], rows);
    ngrams[i] = {};
    row_labels.push_back(texts[i].label);
  }
  if (model.rows() == 1) {
    Objective objective(rows, row_labels, model.feature_count(), options.c, pool);
    round_weights(minimise(objective, options), model);
  } else {
    round_weights(descend(rows, row_labels, model.feature_count(), model.rows(), options), model);
  }
  return model;
}

double area_under_curve(const std::vector<double>& scores, const std::vector<int>& labels) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, {}, [&](size_t i) { return scores[i]; });
  // The ranks of the positive ones (Mann and Whitney); equal scores share their mean rank.
  double ranks = 0;
  double positive = 0;
  for (size_t i = 0; i < order.size();) {
    size_t end = i;
    while (end < order.size() && scores[order[end]] == scores[order[i]]) ++end;
    const double rank = static_cast<double>(i + end + 1) / 2;
    for (; i < end; ++i) {
      if (labels[order[i]] == 0) continue;
      ranks += rank;
      ++positive;
    }
  }
  const double negative = static_cast<double>(scores.size()) - positive;
  if (positive == 0 || negative == 0) return std::numeric_limits<double>::quiet_NaN();
  return (ranks - positive * (positive + 1) / 2) / (positive * negative);
}

Quality quality_at(const std::vector<double>& scores, const std::vector<int>& labels,
                   double threshold) {
  double found = 0, wrong = 0, missed = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    const bool positive = scores[i] >= threshold;
    found += positive && labels[i] == 1;
    wrong += positive && labels[i] == 0;
    missed += !positive && labels[i] == 1;
  }
  Quality q;
  if (found > 0) {
    q.precision = found / (found + wrong);
    q.recall = found / (found + missed);
    q.f1 = 2 * q.precision * q.recall / (q.precision + q.recall);
  }
  return q;
}

double best_threshold(const std::vector<double>& scores, const std::vector<int>& labels) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, std::greater(), [&](size_t i) { return scores[i]; });
  double total = 0;
  for (const int label : labels) total += label;
  double best = -1, threshold = 0.5, found = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    found += labels[order[i]];
    if (i + 1 < order.size() && scores[order[i + 1]] == scores[order[i]]) continue;
    const double f1 = 2 * found / (static_cast<double>(i + 1) + total);
    if (f1 > best) {
      best = f1;
      // Half way to the next score, so that a rounding does not move a text over it.
      threshold =
          i + 1 < order.size() ? (scores[order[i]] + scores[order[i + 1]]) / 2 : scores[order[i]];
    }
  }
  return threshold;
}

}  // namespace quern
