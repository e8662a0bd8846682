// Training of linear classifiers: logistic regression on n-grams of texts.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "data/classify/linear_model.h"

namespace quern {

struct LabelledText {
  std::string text;
  int label = 0;  // index into labels
};

struct LinearTraining {
  FeatureOptions features;
  double c = 10;         // of two labels: the objective is |w|^2 / 2 + c * sum of losses
  int least_texts = 2;   // a n-gram must be in so many to be a feature; with buckets all are
  int iterations = 300;  // of L-BFGS, at most
  int passes = 5;        // of more than two labels, over the texts
  LinearModel::Precision precision = LinearModel::Precision::Int16;
  std::function<void(int pass, double loss)> on_iteration = [](int, double) {};
};

// Two labels: the weights that minimise the penalised loss, by L-BFGS (Liu and Nocedal 1989), from
// zero. More: multinomial, by a few passes of AdaGrad without a penalty. The same bytes for any number
// of threads. Throws BadInput for a label without texts.
LinearModel train_linear(const std::vector<LabelledText>& texts, std::vector<std::string> labels,
                         const LinearTraining& options, ThreadPool& pool);

// Area under the ROC curve of scores by label 0 or 1 (ties count half). NaN where one is missing.
double area_under_curve(const std::vector<double>& scores, const std::vector<int>& labels);

struct Quality {
  double precision = 0, recall = 0, f1 = 0;
};
Quality quality_at(const std::vector<double>& scores, const std::vector<int>& labels,
                   double threshold);
// The threshold with the best F1.
double best_threshold(const std::vector<double>& scores, const std::vector<int>& labels);

}  // namespace quern
