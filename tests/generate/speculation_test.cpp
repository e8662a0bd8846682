// Guessing tokens changes how many steps a text takes and nothing else: not its ids, not its
// distribution, whoever guesses and however wrong.
#include <algorithm>
#include <cmath>
#include <map>

#include "core/rng.h"
#include "formats/safetensors.h"
#include "generate/model.h"
#include "generate/scheduler.h"
#include "support/support.h"

namespace quern {
namespace {

EngineOptions options_of(const Model& model, int64_t speculate, const Model* draft) {
  EngineOptions options = model.engine_options();
  options.speculate = speculate;
  if (draft != nullptr) {
    options.draft = {&draft->config(), &draft->weights(), draft->engine_options().rules};
  }
  return options;
}

struct Outcome {
  std::vector<Completion> completions;
  Scheduler::Load load;
};

// All requests together, to their end.
Outcome run(Model& model, const std::vector<Request>& requests, int64_t speculate,
            const Model* draft = nullptr, int64_t capacity = 16384) {
  Scheduler scheduler(model.network(), nullptr, options_of(model, speculate, draft), capacity, 16);
  Outcome out;
  out.completions.resize(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    scheduler.add(requests[i],
                  {{}, [&out, i](Completion done) { out.completions[i] = std::move(done); }});
  }
  int64_t steps = 0;
  while (scheduler.step()) {
    if (++steps > 200'000) {
      ADD_FAILURE() << "it does not end";
      break;
    }
  }
  scheduler.cancel_all();
  out.load = scheduler.load();
  return out;
}

// Texts of every kind: some say the same again and again, as lookups like it.
std::vector<Request> requests_for(const Model& model, int count) {
  std::vector<Request> all;
  for (int i = 0; i < count; ++i) {
    Rng rng(static_cast<uint64_t>(i), 7);
    Request request;
    const auto random_id = [&] {
      return static_cast<TokenId>(rng.below(static_cast<uint64_t>(model.config().vocab)));
    };
    const uint64_t length = 1 + rng.below(60);
    for (uint64_t k = 0; k < length; ++k) request.ids.push_back(random_id());
    if (i % 2 == 0) {
      const std::vector<TokenId> once = request.ids;
      for (int k = 0; k < 2; ++k) request.ids.insert(request.ids.end(), once.begin(), once.end());
    }
    request.max_new_tokens = 1 + static_cast<int64_t>(rng.below(50));
    request.sampling.greedy = true;
    all.push_back(std::move(request));
  }
  return all;
}

void expect_same_ids(const Outcome& got, const Outcome& want, const std::string& what) {
  for (size_t i = 0; i < want.completions.size(); ++i) {
    EXPECT_EQ(got.completions[i].ids, want.completions[i].ids) << what << ", request " << i;
    EXPECT_EQ(got.completions[i].reason, want.completions[i].reason) << what;
  }
}

class Speculation : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(Speculation, GreedyIdsAreThoseOfOneTokenAtATime) {
  const fs::path folder = test::case_folder(GetParam().first),
                 small = test::case_folder(GetParam().second);
  QUERN_NEED(folder);
  QUERN_NEED(small);
  Model model(folder), draft(small);
  const auto requests = requests_for(model, 16);
  // These say one thing over and over: what lookups are good at.
  auto repeating = requests;
  for (Request& request : repeating) request.sampling.logit_bias = {{5, 100.0f}};
  const Outcome plain = run(model, requests, 0), repeated = run(model, repeating, 0);
  EXPECT_EQ(plain.load.guessed_tokens, 0);
  for (const int64_t speculate : {1, 4, 7}) {
    expect_same_ids(run(model, requests, speculate), plain, "looked up");
    const Outcome looked_up = run(model, repeating, speculate);
    expect_same_ids(looked_up, repeated, "looked up while repeating");
    EXPECT_GT(looked_up.load.accepted_tokens, 0);
    EXPECT_LT(looked_up.load.steps, repeated.load.steps);
    const Outcome drafted = run(model, requests, speculate, &draft);
    expect_same_ids(drafted, plain, "drafted");
    EXPECT_GT(drafted.load.guessed_tokens, 0);
    // A draft that is the model itself is right whenever it guesses.
    const Outcome by_itself = run(model, requests, speculate, &model);
    expect_same_ids(by_itself, plain, "drafted by itself");
    EXPECT_EQ(by_itself.load.accepted_tokens, by_itself.load.guessed_tokens);
    EXPECT_LT(by_itself.load.steps, plain.load.steps);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, Speculation,
    testing::Values(std::pair{"qwen1-new", "qwen1-bf16"}, std::pair{"qwen1-generate", "qwen1-lora"},
                    std::pair{"qwen1-longctx-both", "qwen1-generate"},
                    std::pair{"qwen1-gptq-int4", "qwen1-generate"}, std::pair{"llama-gqa", "qwen3"},
                    std::pair{"qwen2-window", "qwen2"}, std::pair{"qwen3", "llama-gqa"}),
    [](const auto& test) {
      std::string name = test.param.first;
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

TEST(SpeculationGolden, TheReferencesGreedyIds) {
  const fs::path folder = test::case_folder("qwen1-generate"),
                 small = test::case_folder("qwen1-lora");
  QUERN_NEED(folder);
  QUERN_NEED(small);
  Model model(folder), draft(small);
  const SafetensorsFile golden(folder / "golden.safetensors");
  const auto ids_of = [&](const std::string& name) {
    const auto wide = to_integers(golden.at(name), name);
    return std::vector<TokenId>(wide.begin(), wide.end());
  };
  Request request;
  request.ids = ids_of("input_ids");
  request.sampling.greedy = true;
  request.max_new_tokens = 40;
  EXPECT_EQ(run(model, {request}, 4).completions[0].ids, ids_of("greedy"));
  EXPECT_EQ(run(model, {request}, 4, &draft).completions[0].ids, ids_of("greedy"));
}

// Three sampled tokens of four candidates each: the counts of the 64 texts against probabilities
// that plain steps tell, by a chi-square test.
TEST(SpeculationDistribution, IsThatOfTheModel) {
  const fs::path folder = test::case_folder("qwen1-generate");
  QUERN_NEED(folder);
  Model model(folder);
  constexpr int64_t kCandidates = 4;
  constexpr size_t kTokens = 3;
  constexpr int kSamples = 4000;
  Request request;
  request.sampling.top_k = kCandidates;
  request.max_new_tokens = kTokens;
  // A prompt that says something three times, and whose begin is one of the four that may follow:
  // then lookups find something.
  for (uint64_t seed = 0;; ++seed) {
    ASSERT_LT(seed, 5000u);
    Rng rng(seed);
    request.ids.clear();
    for (int i = 0; i < 8; ++i) request.ids.push_back(static_cast<TokenId>(rng.below(256)));
    for (int i = 0; i < 16; ++i) request.ids.push_back(request.ids[static_cast<size_t>(i)]);
    Request next = request;
    next.max_new_tokens = 1;
    next.top_logprobs = kCandidates;
    const Completion done = run(model, {next}, 0).completions[0];
    if (std::any_of(done.logprobs[0].top.begin(), done.logprobs[0].top.end(),
                    [&](const TokenLogprob& top) { return top.id == request.ids[0]; })) {
      break;
    }
  }

  // P(text) by the definition: of each token among the four likeliest, given those before it.
  std::map<std::vector<TokenId>, double> expected = {{{}, 1.0}};
  for (size_t length = 0; length < kTokens; ++length) {
    std::map<std::vector<TokenId>, double> longer;
    for (const auto& [text, probability] : expected) {
      Request next = request;
      next.ids.insert(next.ids.end(), text.begin(), text.end());
      next.max_new_tokens = 1;
      next.top_logprobs = kCandidates;
      const Completion done = run(model, {next}, 0).completions[0];
      double sum = 0;
      for (const TokenLogprob& top : done.logprobs[0].top) sum += std::exp(double{top.logprob});
      for (const TokenLogprob& top : done.logprobs[0].top) {
        std::vector<TokenId> more = text;
        more.push_back(top.id);
        longer[more] = probability * std::exp(double{top.logprob}) / sum;
      }
    }
    expected = std::move(longer);
  }
  ASSERT_EQ(expected.size(), 64u);

  std::vector<Request> requests(kSamples, request);
  for (size_t i = 0; i < requests.size(); ++i) requests[i].sampling.seed = i;
  // By lookups, and by the model itself: what it guesses is the likeliest, and often not drawn.
  for (const Model* guesser : {static_cast<const Model*>(nullptr), &std::as_const(model)}) {
    const Outcome sampled = run(model, requests, 2, guesser);
    // Guesses were made, wrong ones too; those of the model itself were right as well.
    EXPECT_GT(sampled.load.guessed_tokens, kSamples / 20);
    if (guesser != nullptr) {
      EXPECT_GT(sampled.load.accepted_tokens, 0);
    }
    EXPECT_LT(sampled.load.accepted_tokens, sampled.load.guessed_tokens);
    std::map<std::vector<TokenId>, int> counts;
    for (const Completion& done : sampled.completions) ++counts[done.ids];
    double chi_square = 0, rare_expected = 0, rare_count = 0;
    int cells = 0, counted = 0;
    const auto add = [&](double want, double got) {
      chi_square += (got - want) * (got - want) / want;
      ++cells;
    };
    for (const auto& [text, probability] : expected) {
      const double want = probability * kSamples;
      const auto found = counts.find(text);
      const int got = found == counts.end() ? 0 : found->second;
      counted += got;
      if (want >= 5) {
        add(want, got);
      } else {
        rare_expected += want;
        rare_count += got;
      }
    }
    if (rare_expected > 0) add(rare_expected, rare_count);
    EXPECT_EQ(counted, kSamples);  // no text beside the 64
    // Wilson and Hilferty: the cube root of chi-square by its degrees of freedom is nearly normal.
    const double degrees = cells - 1;
    const double z =
        (std::cbrt(chi_square / degrees) - (1 - 2 / (9 * degrees))) / std::sqrt(2 / (9 * degrees));
    EXPECT_LT(z, 3.5) << "chi-square " << chi_square << " of " << degrees << " degrees";
  }
}

// Who gives its memory back in the middle of a guess begins again without it.
TEST(SpeculationMemory, WhenItRunsOutTheIdsStayTheSame) {
  const fs::path folder = test::case_folder("qwen1-longctx-both"),
                 small = test::case_folder("qwen1-generate");
  QUERN_NEED(folder);
  QUERN_NEED(small);
  Model model(folder), draft(small);
  auto requests = requests_for(model, 24);
  for (Request& request : requests) request.max_new_tokens = 120;
  const Outcome roomy = run(model, requests, 0, nullptr, 16384);
  for (const Model* guesser : {static_cast<const Model*>(nullptr), &std::as_const(draft)}) {
    const Outcome cramped = run(model, requests, 5, guesser, 512);
    expect_same_ids(cramped, roomy, "cramped");
    EXPECT_GT(cramped.load.preemptions, 0);
    EXPECT_EQ(cramped.load.free_pages, cramped.load.pages);
  }
}

}  // namespace
}  // namespace quern
