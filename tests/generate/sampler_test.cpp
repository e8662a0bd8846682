#include "generate/sampler.h"

#include <cmath>
#include <map>
#include <numeric>

#include "core/json.h"
#include "core/rng.h"
#include "formats/safetensors.h"
#include "support/support.h"

namespace quern {
namespace {

SamplingOptions options_of(const Json& json) {
  SamplingOptions o;
  o.temperature = json.number_or("temperature", o.temperature);
  o.top_k = json.integer_or("top_k", o.top_k);
  o.top_p = json.number_or("top_p", o.top_p);
  o.min_p = json.number_or("min_p", o.min_p);
  o.repetition_penalty = json.number_or("repetition_penalty", o.repetition_penalty);
  return o;
}

// Probabilities after the filters, as the processors of transformers compute them.
TEST(Sampler, ProbabilitiesOfTheReference) {
  const fs::path folder = test::source("tests/fixtures/models/sampling");
  QUERN_NEED(folder);
  const SafetensorsFile golden(folder / "golden.safetensors");
  const Json sets = Json::parse_file((folder / "case.json").string()).at("parameter_sets");
  const auto wide = to_integers(golden.at("history"), "history");
  const std::vector<TokenId> history(wide.begin(), wide.end());
  int checked = 0;
  for (const std::string kind : {"normal", "peaked", "flat", "ties"}) {
    const auto logits = to_floats(golden.at("logits." + kind), kind);
    for (size_t i = 0; i < sets.size(); ++i) {
      const std::string name = "probs." + kind + "." + std::to_string(i);
      if (!golden.find(name)) continue;
      Sampler sampler(options_of(sets[i]), static_cast<int64_t>(logits.size()));
      test::check_close(sampler.probabilities(logits, history, 0), to_floats(golden.at(name), name),
                        {1e-5, 0}, name);
      ++checked;
    }
  }
  EXPECT_EQ(checked, 76);
}

std::vector<float> distribution(const SamplingOptions& options, std::vector<float> logits,
                                std::vector<TokenId> history = {}, size_t prompt = 0) {
  Sampler sampler(options, static_cast<int64_t>(logits.size()));
  return sampler.probabilities(logits, history, prompt);
}

TEST(Sampler, GreedyTakesTheLowestOfEquals) {
  std::vector<float> logits = {1, 3, 3, 2};
  Sampler sampler({.greedy = true}, 4);
  EXPECT_EQ(sampler.sample(logits, {}, 0), 1);
}

TEST(Sampler, TemperatureZeroIsGreedy) {
  std::vector<float> logits = {1, 3, 2};
  Sampler sampler({.temperature = 0}, 3);
  EXPECT_EQ(sampler.sample(logits, {}, 0), 1);
}

// Penalties as OpenAI defines them: generated tokens alone count.
TEST(Sampler, FrequencyAndPresencePenaltiesCountGeneratedTokens) {
  const std::vector<float> logits = {0, 0, 0};
  const auto p = distribution({.frequency_penalty = 1, .presence_penalty = 0.5}, logits,
                              {0, 1, 1, 1}, /*prompt=*/1);
  const double expected = std::exp(-3 * 1 - 0.5);
  EXPECT_NEAR(p[1] / p[0], expected, 1e-6);
  EXPECT_NEAR(p[2] / p[0], 1, 1e-6);
}

TEST(Sampler, NoNgramIsCompletedTwice) {
  const auto p = distribution({.no_repeat_ngram = 2}, {0, 0, 0}, {1, 2, 0, 1});
  EXPECT_EQ(p[2], 0);
  EXPECT_NEAR(p[0], 0.5, 1e-6);
}

TEST(Sampler, LogitBiasIsAddedAndCanBan) {
  const auto p = distribution({.logit_bias = {{0, 2.0f}, {1, -INFINITY}}}, {0, 0, 0});
  EXPECT_EQ(p[1], 0);
  EXPECT_NEAR(p[0] / p[2], std::exp(2.0), 1e-4);
}

// Locally typical sampling keeps what is nearest to the entropy, not the likeliest.
TEST(Sampler, TypicalKeepsWhatIsNearTheEntropy) {
  const std::vector<double> q = {0.5, 0.2, 0.15, 0.1, 0.05};
  std::vector<float> logits;
  double entropy = 0;
  for (const double x : q) {
    logits.push_back(static_cast<float>(std::log(x)));
    entropy -= x * std::log(x);
  }
  std::vector<size_t> order(q.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::abs(-std::log(q[a]) - entropy) < std::abs(-std::log(q[b]) - entropy);
  });
  double mass = 0;
  std::vector<bool> kept(q.size(), false);
  for (size_t i : order) {
    if (mass >= 0.4) break;
    kept[i] = true;
    mass += q[i];
  }
  const auto p = distribution({.typical_p = 0.4}, logits);
  for (size_t i = 0; i < q.size(); ++i) {
    EXPECT_NEAR(p[i], kept[i] ? q[i] / mass : 0, 1e-5) << i;
  }
}

TEST(Sampler, DrawsFollowTheDistributionAndTheSeed) {
  const std::vector<float> logits = {0, std::log(2.0f), std::log(5.0f)};
  std::map<TokenId, int> counts;
  std::vector<TokenId> first, second;
  for (auto* draws : {&first, &second}) {
    Sampler sampler({.seed = 11}, 3);
    for (int i = 0; i < 20'000; ++i) {
      std::vector<float> copy = logits;
      draws->push_back(sampler.sample(copy, {}, 0));
    }
  }
  EXPECT_EQ(first, second);
  for (const TokenId id : first) ++counts[id];
  EXPECT_NEAR(counts[0] / 20'000.0, 1 / 8.0, 0.01);
  EXPECT_NEAR(counts[2] / 20'000.0, 5 / 8.0, 0.015);
  Sampler other({.seed = 12}, 3);
  std::vector<TokenId> third;
  for (int i = 0; i < 100; ++i) {
    std::vector<float> copy = logits;
    third.push_back(other.sample(copy, {}, 0));
  }
  EXPECT_NE(third, std::vector<TokenId>(first.begin(), first.begin() + 100));
}

TEST(Sampler, TopPOverALargeVocabularyKeepsTheSmallestSet) {
  constexpr size_t kVocab = 50'000;
  const auto logits = test::random_floats(kVocab, 5);
  const auto p = distribution({.top_p = 0.3}, logits);
  std::vector<float> all = distribution({}, logits);
  std::sort(all.begin(), all.end(), std::greater<>());
  double sum = 0;
  size_t count = 0;
  while (sum < 0.3) sum += all[count++];
  EXPECT_EQ(std::count_if(p.begin(), p.end(), [](float x) { return x > 0; }),
            static_cast<int64_t>(count));
}

// A draw is the place where the probabilities, summed from the likeliest on, pass a random number.
TEST(Sampler, DrawsFromTheNucleusAreThoseOfItsDefinition) {
  constexpr size_t kVocab = 3000;
  for (const float scale : {0.0f, 0.5f, 8.0f}) {  // all alike, flat, peaked
    std::vector<float> logits = test::random_floats(kVocab, 3);
    for (float& x : logits) x = std::round(x * scale * 4) / 4;  // with ties
    const SamplingOptions options{.top_p = 0.9, .seed = 7};
    std::vector<float> p = distribution({.top_p = 0.9}, logits);
    std::vector<size_t> order(kVocab);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    Sampler sampler(options, kVocab, /*stream=*/2);
    Rng rng(7, 2);
    int differ = 0;
    for (int draw = 0; draw < 300; ++draw) {
      std::vector<float> copy = logits;
      const TokenId got = sampler.sample(copy, {}, 0);
      const double wanted = rng.uniform();
      double sum = 0;
      size_t at = 0;
      while (at + 1 < kVocab && (sum += p[order[at]]) < wanted) ++at;
      differ += got != static_cast<TokenId>(order[at]);
    }
    EXPECT_LE(differ, 2) << scale;  // where float probabilities round to the other side
  }
}

TEST(Sampler, ArgmaxIsTheFirstOfTheLargest) {
  for (const size_t size : {1, 31, 32, 33, 100, 1000}) {
    std::vector<float> logits = test::random_floats(size, size);
    for (const size_t at : {size_t{0}, size / 2, size - 1}) {
      const float before = std::exchange(logits[at], 50.0f);
      EXPECT_EQ(argmax(logits), static_cast<TokenId>(at));
      logits[size - 1] = 50;
      EXPECT_EQ(argmax(logits), static_cast<TokenId>(at));
      logits[at] = before;
    }
  }
  const std::vector<float> none(40, -INFINITY);
  EXPECT_EQ(argmax(none), 0);
}

TEST(Sampler, LogitsThatAreNotFiniteAreAnError) {
  std::vector<float> logits = {NAN, NAN};
  Sampler sampler({.greedy = true}, 2);
  test::expect_error([&] { sampler.sample(logits, {}, 0); }, Kind::Failed, {"not finite"});
}

TEST(Sampler, OptionsOutOfRangeAreNamed) {
  test::expect_error([] { SamplingOptions{.temperature = -1}.check(); }, Kind::Misused,
                     {"temperature is -1"});
  test::expect_error([] { SamplingOptions{.top_p = 1.1}.check(); }, Kind::Misused,
                     {"top-p is 1.1"});
  test::expect_error([] { SamplingOptions{.top_k = -1}.check(); }, Kind::Misused, {"top-k is -1"});
  test::expect_error([] { SamplingOptions{.repetition_penalty = 0}.check(); }, Kind::Misused,
                     {"repetition-penalty is 0"});
  test::expect_error([] { SamplingOptions{.temperature = NAN}.check(); }, Kind::Misused,
                     {"temperature"});
}

TEST(Logprobs, AreTheLogSoftmaxOfTheRawLogits) {
  const std::vector<float> logits = {0, 1, 2};
  const double norm = std::log(1 + std::exp(1.0) + std::exp(2.0));
  const Logprobs out = logprobs_of(logits, 0, 2);
  EXPECT_NEAR(out.chosen, -norm, 1e-6);
  ASSERT_EQ(out.top.size(), 2u);
  EXPECT_EQ(out.top[0].id, 2);
  EXPECT_NEAR(out.top[0].logprob, 2 - norm, 1e-6);
}

}  // namespace
}  // namespace quern
