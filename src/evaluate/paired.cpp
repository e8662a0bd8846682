#include "evaluate/paired.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/rng.h"
#include "evaluate/metrics/bleu.h"

namespace quern {
namespace {

std::string text_of(const Json& value) {
  return value.is_string() ? value.string() : value.raw().dump();
}

void must_agree(const Json& a, const Json& b, const char* field) {
  const std::string of_a = text_of(a.at(field)), of_b = text_of(b.at(field));
  if (of_a == of_b) return;
  throw_bad_input(fmt::format("the results differ in {}: {} and {}", field, printable(of_a, 80),
                              printable(of_b, 80)),
                  "only runs of the same items and prompts can be compared");
}

PairedDifference accuracies(const Json& a, const Json& b, const char* rule, const char* field) {
  PairedDifference out;
  out.rule = rule;
  const auto of_a = a.at("samples").items(), of_b = b.at("samples").items();
  double sum_a = 0, sum_b = 0;
  for (size_t i = 0; i < of_a.size(); ++i) {
    const double x = of_a[i].number_or(field, 0), y = of_b[i].number_or(field, 0);
    sum_a += x;
    sum_b += y;
    if (x == y) continue;
    out.changed.push_back(of_a[i].at("id").string());
    (x > y ? out.only_a : out.only_b) += 1;
  }
  const auto n = static_cast<double>(std::max<size_t>(of_a.size(), 1));
  out.a = 100 * sum_a / n;
  out.b = 100 * sum_b / n;
  out.difference = out.b - out.a;
  out.p = mcnemar_p(out.only_a, out.only_b);
  return out;
}

BleuCounts counts_of(const Json& sample) {
  BleuCounts counts;
  for (size_t n = 0; n < counts.matches.size(); ++n) {
    counts.matches[n] = sample.at("bleu_matches")[n].integer();
    counts.totals[n] = sample.at("bleu_totals")[n].integer();
  }
  counts.hypothesis_tokens = sample.at("bleu_lengths")[0].integer();
  counts.reference_tokens = sample.at("bleu_lengths")[1].integer();
  return counts;
}

PairedDifference bleu(const Json& a, const Json& b) {
  PairedDifference out;
  out.rule = "parity";
  std::vector<BleuCounts> of_a, of_b;
  BleuCounts all_a, all_b;
  const auto samples_a = a.at("samples").items(), samples_b = b.at("samples").items();
  for (size_t i = 0; i < samples_a.size(); ++i) {
    of_a.push_back(counts_of(samples_a[i]));
    of_b.push_back(counts_of(samples_b[i]));
    all_a += of_a.back();
    all_b += of_b.back();
    if (of_a.back().matches != of_b.back().matches) {
      out.changed.push_back(samples_a[i].at("id").string());
    }
  }
  out.a = bleu_score(all_a).bleu;
  out.b = bleu_score(all_b).bleu;
  out.difference = out.b - out.a;
  constexpr int kResamplings = 1000;
  int other_sign = 0;
  Rng rng(0);
  for (int i = 0; i < kResamplings; ++i) {
    BleuCounts drawn_a, drawn_b;
    for (size_t j = 0; j < of_a.size(); ++j) {
      const size_t drawn = rng.below(of_a.size());
      drawn_a += of_a[drawn];
      drawn_b += of_b[drawn];
    }
    const double difference = bleu_score(drawn_b).bleu - bleu_score(drawn_a).bleu;
    other_sign += difference * out.difference <= 0;
  }
  out.p = std::min(1.0, 2.0 * other_sign / kResamplings);
  return out;
}

}  // namespace

double mcnemar_p(int64_t one, int64_t other) {
  const int64_t n = one + other, fewer = std::min(one, other);
  if (n == 0) return 1;
  double sum = 0;
  for (int64_t i = 0; i <= fewer; ++i) {
    const auto choose = std::lgamma(static_cast<double>(n) + 1) -
                        std::lgamma(static_cast<double>(i) + 1) -
                        std::lgamma(static_cast<double>(n - i) + 1);
    sum += std::exp(choose - static_cast<double>(n) * std::log(2.0));
  }
  return std::min(1.0, 2 * sum);
}

std::vector<PairedDifference> compare_results(const Json& a, const Json& b) {
  for (const char* field : {"task", "version", "prompts_sha256"}) must_agree(a, b, field);
  const auto samples_a = a.at("samples").items(), samples_b = b.at("samples").items();
  if (samples_a.size() != samples_b.size()) {
    throw_bad_input(
        fmt::format("one result has {} items, the other {}", samples_a.size(), samples_b.size()));
  }
  for (size_t i = 0; i < samples_a.size(); ++i) {
    must_agree(samples_a[i], samples_b[i], "id");
  }
  std::vector<PairedDifference> differences;
  const Json parity = a.at("results").at("parity");
  const auto metrics = parity.members();
  if (metrics.empty()) a.fail("has no scores to compare");
  const std::string metric = metrics.front().first;
  if (metric == "bleu") {
    differences.push_back(bleu(a, b));
  } else {
    differences.push_back(accuracies(a, b, "parity", "correct"));
    differences.push_back(accuracies(a, b, "fixed", "correct_fixed"));
  }
  for (PairedDifference& difference : differences) {
    difference.task = a.at("task").string();
    difference.metric = metric;
  }
  return differences;
}

}  // namespace quern
