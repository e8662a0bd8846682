#include "generate/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"

namespace quern {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

void check_range(const char* name, double value, double min, double max) {
  if (value >= min && value <= max) return;
  throw Error(Kind::Misused, fmt::format("{} is {}, expected {} to {}", name, value, min, max));
}

using Candidate = SamplerScratch::Candidate;

double weight_of(std::span<const Candidate> candidates) {
  return std::accumulate(candidates.begin(), candidates.end(), 0.0,
                         [](double sum, const Candidate& c) { return sum + c.weight; });
}

bool likelier(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

// How many of the likeliest it takes to weigh `wanted` together; all where they never do. These
// come first afterwards, in no order but for the last of them, which is the least likely. Time
// grows as the number of candidates: halves are set apart, not sorted.
size_t likeliest(std::span<Candidate> candidates, double wanted) {
  size_t begin = 0, end = candidates.size();
  double before = 0;  // what those in front of `begin` weigh
  while (end - begin > 32) {
    const size_t middle = begin + (end - begin) / 2;
    const auto at = [&](size_t i) { return candidates.begin() + static_cast<int64_t>(i); };
    std::nth_element(at(begin), at(middle), at(end), likelier);
    const double sum = before + weight_of(candidates.subspan(begin, middle - begin));
    if (sum >= wanted) {
      end = middle;
    } else {
      before = sum;
      begin = middle;
    }
  }
  const auto rest = candidates.subspan(begin, end - begin);
  std::sort(rest.begin(), rest.end(), likelier);
  for (const Candidate& c : rest) {
    ++begin;
    before += c.weight;
    if (before >= wanted) break;
  }
  return begin;
}

}  // namespace

void SamplingOptions::check() const {
  check_range("temperature", temperature, 0, 100);
  check_range("top-k", static_cast<double>(top_k), 0, 1e9);
  check_range("top-p", top_p, 0, 1);
  check_range("min-p", min_p, 0, 1);
  check_range("typical-p", typical_p, 0, 1);
  check_range("repetition-penalty", repetition_penalty, 1e-3, 1e3);
  check_range("frequency-penalty", frequency_penalty, -100, 100);
  check_range("presence-penalty", presence_penalty, -100, 100);
  check_range("no-repeat-ngram", static_cast<double>(no_repeat_ngram), 0, 1e6);
}

TokenId argmax(std::span<const float> logits) noexcept {
  // Many maxima side by side, which the compiler keeps in vectors; NaN is greater than nothing.
  constexpr size_t kLanes = 32;
  float lanes[kLanes];
  std::fill(std::begin(lanes), std::end(lanes), logits[0]);
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      lanes[j] = logits[i + j] > lanes[j] ? logits[i + j] : lanes[j];
    }
  }
  float largest = *std::max_element(std::begin(lanes), std::end(lanes));
  for (; i < logits.size(); ++i) largest = logits[i] > largest ? logits[i] : largest;
  const auto first = std::find(logits.begin(), logits.end(), largest);
  return first == logits.end() ? 0 : static_cast<TokenId>(first - logits.begin());
}

Sampler::Sampler(const SamplingOptions& options, int64_t vocab, uint64_t stream,
                 SamplerScratch* scratch)
    : options_(options),
      rng_(options.seed, stream),
      own_(scratch == nullptr ? std::make_unique<SamplerScratch>() : nullptr),
      scratch_(scratch == nullptr ? own_.get() : scratch) {
  const auto size = static_cast<size_t>(vocab);
  scratch_->seen.resize(size);
  scratch_->counts.resize(size);
  if (options.is_greedy()) return;
  scratch_->kept.reserve(size);
  scratch_->sorted.reserve(size);
}

void Sampler::penalize(std::span<float> logits, std::span<const TokenId> history,
                       size_t prompt_length) {
  const auto in_range = [&](TokenId id) { return static_cast<size_t>(id) < logits.size(); };
  for (const auto& [id, bias] : options_.logit_bias) {
    if (in_range(id)) logits[static_cast<size_t>(id)] += bias;
  }
  if (options_.repetition_penalty != 1) {
    const auto penalty = static_cast<float>(options_.repetition_penalty);
    for (const TokenId id : history) {
      if (!in_range(id) || scratch_->seen[static_cast<size_t>(id)] != 0) continue;
      scratch_->seen[static_cast<size_t>(id)] = 1;
      float& logit = logits[static_cast<size_t>(id)];
      logit = logit < 0 ? logit * penalty : logit / penalty;
    }
    for (const TokenId id : history) {
      if (in_range(id)) scratch_->seen[static_cast<size_t>(id)] = 0;
    }
  }
  if (options_.frequency_penalty != 0 || options_.presence_penalty != 0) {
    const auto generated = history.subspan(prompt_length);
    for (const TokenId id : generated) {
      if (in_range(id)) ++scratch_->counts[static_cast<size_t>(id)];
    }
    for (const TokenId id : generated) {
      if (!in_range(id)) continue;
      int32_t& count = scratch_->counts[static_cast<size_t>(id)];
      if (count == 0) continue;
      logits[static_cast<size_t>(id)] -=
          static_cast<float>(options_.frequency_penalty * count + options_.presence_penalty);
      count = 0;
    }
  }
  const auto n = static_cast<size_t>(options_.no_repeat_ngram);
  if (n > 0 && history.size() + 1 >= n) {
    const auto last = history.last(n - 1);
    for (size_t i = 0; i + n <= history.size(); ++i) {
      if (!std::equal(last.begin(), last.end(), history.begin() + static_cast<int64_t>(i)))
        continue;
      if (const TokenId next = history[i + n - 1]; in_range(next)) {
        logits[static_cast<size_t>(next)] = kNone;
      }
    }
  }
}

// Fills scratch_->kept with what survives temperature, top-k, top-p, min-p and typical.
void Sampler::filter(std::span<const float> logits) {
  const auto temperature = static_cast<float>(options_.temperature);
  const auto k = static_cast<size_t>(options_.top_k);
  float least = kNone;
  if (k > 0 && k < logits.size()) {
    scratch_->sorted.assign(logits.begin(), logits.end());
    const auto kth = scratch_->sorted.begin() + static_cast<int64_t>(k - 1);
    std::nth_element(scratch_->sorted.begin(), kth, scratch_->sorted.end(), std::greater<>());
    least = *kth;
  }
  const float largest = logits[static_cast<size_t>(argmax(logits))];
  scratch_->kept.clear();
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] < least || logits[id] == kNone) continue;
    const float scaled = (logits[id] - largest) / temperature;
    scratch_->kept.push_back({static_cast<TokenId>(id), scaled, std::exp(scaled)});
  }
  if (options_.top_p < 1) keep_top_p();
  if (options_.min_p > 0) {
    const float bound = static_cast<float>(options_.min_p);  // the most likely has weight 1
    std::erase_if(scratch_->kept, [&](const Candidate& c) { return c.weight < bound; });
  }
  if (options_.typical_p < 1) keep_typical();
}

// What the sum needs of the likeliest, in no order.
void Sampler::keep_top_p() {
  auto& kept = scratch_->kept;
  const double total = weight_of(kept);
  // Those under this bound weigh less together than what is cut off, so all of them are in it; half
  // of it leaves room for rounding.
  const double bound = 0.5 * (1 - options_.top_p) * total / static_cast<double>(kept.size());
  std::erase_if(kept, [&](const Candidate& c) { return c.weight < bound; });
  kept.resize(likeliest(kept, options_.top_p * total));
}

// Keeps the tokens whose information is nearest to the distribution's entropy, up to a total
// probability of typical_p.
void Sampler::keep_typical() {
  double total = 0, weighted = 0;
  for (const Candidate& c : scratch_->kept) {
    total += c.weight;
    weighted += static_cast<double>(c.weight) * c.logit;
  }
  const double entropy = std::log(total) - weighted / total;
  const auto distance = [&](const Candidate& c) {
    return std::abs(std::log(total) - static_cast<double>(c.logit) - entropy);
  };
  std::sort(scratch_->kept.begin(), scratch_->kept.end(),
            [&](const Candidate& a, const Candidate& b) {
              const double x = distance(a), y = distance(b);
              return x != y ? x < y : a.id < b.id;
            });
  double sum = 0;
  size_t count = 0;
  while (count < scratch_->kept.size() && sum < options_.typical_p * total)
    sum += scratch_->kept[count++].weight;
  scratch_->kept.resize(std::max<size_t>(1, count));
}

TokenId Sampler::sample(std::span<float> logits, std::span<const TokenId> history,
                        size_t prompt_length) {
  penalize(logits, history, prompt_length);
  const TokenId best = argmax(logits);
  // Where the first is NaN nothing compares greater, so `best` is it; NaN spreads over all logits.
  if (!std::isfinite(logits[static_cast<size_t>(best)])) {
    throw Error(Kind::Failed, "the model's logits are not finite");
  }
  if (options_.is_greedy()) return best;
  filter(logits);
  const double total = weight_of(scratch_->kept);
  double left = rng_.uniform() * total;
  // The nucleus is drawn from in the order of likelihood, which is the same wherever it was cut.
  if (options_.top_p < 1 && options_.typical_p >= 1) {
    return scratch_->kept[likeliest(scratch_->kept, left) - 1].id;
  }
  for (const Candidate& c : scratch_->kept) {
    left -= c.weight;
    if (left < 0) return c.id;
  }
  return scratch_->kept.back().id;
}

std::vector<float> Sampler::probabilities(std::span<const float> logits,
                                          std::span<const TokenId> history, size_t prompt_length) {
  std::vector<float> changed(logits.begin(), logits.end());
  penalize(changed, history, prompt_length);
  std::vector<float> out(logits.size(), 0.0f);
  if (options_.is_greedy()) {
    out[static_cast<size_t>(argmax(changed))] = 1;
    return out;
  }
  filter(changed);
  double total = 0;
  for (const Candidate& c : scratch_->kept) total += c.weight;
  for (const Candidate& c : scratch_->kept) {
    out[static_cast<size_t>(c.id)] = static_cast<float>(c.weight / total);
  }
  return out;
}

Logprobs logprobs_of(std::span<const float> logits, TokenId chosen, int64_t top) {
  const float largest = logits[static_cast<size_t>(argmax(logits))];
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - largest));
  const auto normalizer = static_cast<float>(largest + std::log(sum));
  Logprobs out;
  out.chosen = logits[static_cast<size_t>(chosen)] - normalizer;
  const size_t count = std::min(static_cast<size_t>(top), logits.size());
  if (count == 0) return out;
  std::vector<TokenId> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::partial_sort(ids.begin(), ids.begin() + static_cast<int64_t>(count), ids.end(),
                    [&](TokenId a, TokenId b) {
                      const float x = logits[static_cast<size_t>(a)];
                      const float y = logits[static_cast<size_t>(b)];
                      return x != y ? x > y : a < b;
                    });
  for (size_t i = 0; i < count; ++i) {
    out.top.push_back({ids[i], logits[static_cast<size_t>(ids[i])] - normalizer});
  }
  return out;
}

}  // namespace quern
