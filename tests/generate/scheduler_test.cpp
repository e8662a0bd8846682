// What the scheduler promises: the same bytes alone and in a crowd, with and without what others
// computed, however memory runs out, and an end within one step.
#include "generate/scheduler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "core/rng.h"
#include "formats/safetensors.h"
#include "generate/model.h"
#include "model/adapter.h"
#include "support/support.h"

namespace quern {
namespace {

class SchedulerTest : public testing::Test {
 protected:
  void SetUp() override {
    const fs::path own = test::source("tests/fixtures/models/qwen1-longctx-both");
    const fs::path folder =
        fs::exists(own) ? own : test::shared("fixtures/models/qwen1-longctx-both");
    QUERN_NEED(folder);
    model_ = std::make_unique<Model>(folder);
  }

  Scheduler scheduler(int64_t capacity, int64_t sequences, EngineOptions options) {
    options.rules = model_->engine_options().rules;
    if (options.context == 0) options.context = model_->engine_options().context;
    return Scheduler(model_->network(), nullptr, options, capacity, sequences);
  }
  Scheduler scheduler(int64_t capacity = 8192, int64_t sequences = 16) {
    return scheduler(capacity, sequences, {});
  }

  std::vector<TokenId> random_ids(size_t count, uint64_t seed) const {
    Rng rng(seed);
    std::vector<TokenId> ids(count);
    for (TokenId& id : ids) {
      id = static_cast<TokenId>(rng.below(static_cast<uint64_t>(model_->config().vocab)));
    }
    return ids;
  }

  // Requests of every kind: greedy and sampled, short and past the trained length.
  Request mixed(uint64_t seed) const {
    Rng rng(seed, 99);
    Request request;
    request.ids = random_ids(1 + rng.below(300), seed);
    request.max_new_tokens = 1 + static_cast<int64_t>(rng.below(40));
    request.top_logprobs = 3;
    request.sampling.seed = seed;
    request.sampling.greedy = seed % 3 == 0;
    request.sampling.temperature = 0.7 + 0.1 * static_cast<double>(seed % 5);
    if (seed % 4 == 1) request.sampling.top_p = 0.8;
    if (seed % 5 == 2) request.sampling.repetition_penalty = 1.1;
    return request;
  }

  static Completion alone(Scheduler& scheduler, Request request) {
    Completion out;
    scheduler.add(std::move(request), {{}, [&](Completion c) { out = std::move(c); }});
    while (scheduler.step()) {
    }
    return out;
  }

  std::unique_ptr<Model> model_;
};

bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

void expect_same(const Completion& got, const Completion& want, const std::string& what) {
  EXPECT_EQ(got.ids, want.ids) << what;
  EXPECT_EQ(got.reason, want.reason) << what;
  ASSERT_EQ(got.logprobs.size(), want.logprobs.size()) << what;
  for (size_t i = 0; i < got.logprobs.size(); ++i) {
    EXPECT_TRUE(same_bits(got.logprobs[i].chosen, want.logprobs[i].chosen)) << what << " at " << i;
    for (size_t j = 0; j < got.logprobs[i].top.size(); ++j) {
      EXPECT_EQ(got.logprobs[i].top[j].id, want.logprobs[i].top[j].id) << what;
      EXPECT_TRUE(same_bits(got.logprobs[i].top[j].logprob, want.logprobs[i].top[j].logprob))
          << what << " at " << i;
    }
  }
}

TEST_F(SchedulerTest, ARequestGivesTheSameBytesAloneAndInACrowd) {
  constexpr uint64_t kRequests = 60;
  std::vector<Completion> expected;
  for (uint64_t i = 0; i < kRequests; ++i) {
    Scheduler one = scheduler();
    expected.push_back(alone(one, mixed(i)));
  }
  for (const int64_t chunk : {7, 64, 512}) {
    for (const uint64_t order : {1, 2}) {
      Scheduler crowd = scheduler(16384, 32, {.chunk = chunk});
      Rng rng(order, static_cast<uint64_t>(chunk));
      std::vector<uint64_t> arrivals(kRequests);
      for (uint64_t i = 0; i < kRequests; ++i) arrivals[i] = i;
      for (size_t i = kRequests - 1; i > 0; --i) std::swap(arrivals[i], arrivals[rng.below(i + 1)]);
      std::map<uint64_t, Completion> got;
      // They come while others run.
      for (const uint64_t i : arrivals) {
        crowd.add(mixed(i), {{}, [&got, i](Completion c) { got[i] = std::move(c); }});
        for (uint64_t steps = rng.below(4); steps > 0; --steps) crowd.step();
      }
      while (crowd.step()) {
      }
      ASSERT_EQ(got.size(), kRequests);
      for (uint64_t i = 0; i < kRequests; ++i) {
        expect_same(got[i], expected[i], "request " + std::to_string(i));
      }
      EXPECT_EQ(crowd.load().free_pages, crowd.load().pages);
    }
  }
}

// Every kind of weight has kernels of its own.
TEST_F(SchedulerTest, TheSameBytesInACrowdWithEveryKindOfWeight) {
  for (const char* name : {"qwen1-bf16", "qwen1-gptq-int4", "qwen1-gptq-int8", "llama-gqa"}) {
    const fs::path own = test::source("tests/fixtures/models") / name;
    model_ = std::make_unique<Model>(own);
    std::vector<Completion> expected;
    for (uint64_t i = 0; i < 20; ++i) {
      Scheduler one = scheduler();
      Request request = mixed(i);
      request.ids.resize(1 + request.ids.size() % 60);
      expected.push_back(alone(one, request));
    }
    Scheduler crowd = scheduler(8192, 20, {.chunk = 40});
    std::map<uint64_t, Completion> got;
    for (uint64_t i = 0; i < 20; ++i) {
      Request request = mixed(i);
      request.ids.resize(1 + request.ids.size() % 60);
      crowd.add(request, {{}, [&got, i](Completion c) { got[i] = std::move(c); }});
    }
    while (crowd.step()) {
    }
    for (uint64_t i = 0; i < 20; ++i) {
      expect_same(got[i], expected[i], std::string(name) + ", request " + std::to_string(i));
    }
  }
}

// One copy of the base, and adapters that each request chooses: what it answers is what a model
// loaded with its adapter answers alone, bit for bit, over float and packed weights.
TEST(SchedulerAdapters, RequestsOfDifferentAdaptersShareABatchWithTheSameBytes) {
  for (const std::string name : {"qwen1-lora", "qwen1-qlora"}) {
    const fs::path own = test::source("tests/fixtures/models/" + name);
    const fs::path folder = fs::exists(own) ? own : test::shared("fixtures/models/" + name);
    QUERN_NEED(folder);
    const test::TempFolder temporary;
    // The second adapter is the first, stronger.
    const fs::path first = folder / "adapter", second = temporary.path() / "second";
    fs::copy(first, second, fs::copy_options::recursive);
    std::string config = read_file(first / "adapter_config.json");
    const size_t alpha = config.find("\"lora_alpha\":");
    ASSERT_NE(alpha, config.npos);
    config.replace(alpha, config.find_first_of(",}", alpha) - alpha, "\"lora_alpha\": 160");
    temporary.write("second/adapter_config.json", config);

    Model base(folder);
    const auto load = [&](const fs::path& adapter) {
      return Adapter::load(adapter, folder, base.weights(), base.config());
    };
    const std::shared_ptr<const Adapter> adapters[] = {nullptr, load(first), load(second)};
    EXPECT_GT(adapters[1]->max_rank(), 0);
    EXPECT_GT(adapters[1]->bytes(), 0u);
    EXPECT_NE(adapters[1]->id(), adapters[2]->id());
    const auto request = [&](uint64_t seed) {
      Rng rng(seed, 5);
      Request out;
      for (size_t i = 0; i < 1 + seed * 7 % 90; ++i) {
        out.ids.push_back(
            static_cast<TokenId>(rng.below(static_cast<uint64_t>(base.config().vocab))));
      }
      if (seed % 4 == 0) out.ids.assign(150, 3);  // a prompt that the others have, too
      out.max_new_tokens = 1 + static_cast<int64_t>(seed % 12);
      out.top_logprobs = 2;
      out.sampling.seed = seed;
      out.sampling.greedy = seed % 2 == 0;
      out.reuse_prefix = true;
      return out;
    };
    constexpr uint64_t kRequests = 36;
    std::vector<Completion> expected(kRequests);
    for (uint64_t which = 0; which < 3; ++which) {
      ModelOptions options;
      if (which > 0) options.adapters = {which == 1 ? first : second};
      Model alone(folder, options);
      for (uint64_t seed = which; seed < kRequests; seed += 3) {
        Scheduler one(alone.network(), nullptr, alone.engine_options(), 1024, 1);
        one.add(request(seed), {{}, [&](Completion c) { expected[seed] = std::move(c); }});
        while (one.step()) {
        }
      }
    }
    EngineOptions options = base.engine_options();
    options.adapter_rank = std::max(adapters[1]->max_rank(), adapters[2]->max_rank());
    Scheduler scheduler(base.network(), nullptr, options, 8192, 9);
    std::vector<Completion> got(kRequests);
    for (uint64_t seed = 0; seed < kRequests; ++seed) {
      Request one = request(seed);
      one.adapter = adapters[seed % 3];
      scheduler.add(std::move(one), {{}, [&, seed](Completion c) { got[seed] = std::move(c); }});
    }
    while (scheduler.step()) {
    }
    for (uint64_t seed = 0; seed < kRequests; ++seed) {
      expect_same(got[seed], expected[seed], name + " " + std::to_string(seed));
    }
    // Adapters change what is answered, so the comparison above says something.
    EXPECT_FALSE(same_bits(expected[12].logprobs[0].chosen, expected[4].logprobs[0].chosen));
    EXPECT_FALSE(same_bits(expected[4].logprobs[0].chosen, expected[8].logprobs[0].chosen));

    options.adapter_rank = adapters[1]->max_rank() - 1;
    Scheduler narrow(base.network(), nullptr, options, 1024, 1);
    Request one = request(1);
    one.adapter = adapters[1];
    test::expect_error([&] { narrow.add(std::move(one), {}); }, Kind::BadInput, {"has rank"});
  }
  const fs::path own = test::source("tests/fixtures/models/qwen1-lora-saved-modules");
  const fs::path saved =
      fs::exists(own) ? own : test::shared("fixtures/models/qwen1-lora-saved-modules");
  Model base(saved);
  test::expect_error(
      [&] { Adapter::load(saved / "adapter", saved, base.weights(), base.config()); },
      Kind::Unsupported, {"in full", "cannot be one sequence's choice"});
}

TEST_F(SchedulerTest, WhenMemoryRunsOutTheYoungestIsComputedAgainAndNoByteChanges) {
  std::vector<Completion> expected;
  for (uint64_t i = 0; i < 24; ++i) {
    Scheduler one = scheduler();
    Request request = mixed(i);
    request.max_new_tokens = 120;
    expected.push_back(alone(one, request));
  }
  for (const bool reuse : {false, true}) {
    Scheduler tight = scheduler(768, 8, {.context = 448});
    std::map<uint64_t, Completion> got;
    for (uint64_t i = 0; i < 24; ++i) {
      Request request = mixed(i);
      request.max_new_tokens = 120;
      request.reuse_prefix = reuse;
      tight.add(request, {{}, [&got, i](Completion c) { got[i] = std::move(c); }});
    }
    while (tight.step()) {
    }
    EXPECT_GT(tight.load().preemptions, 0);
    for (uint64_t i = 0; i < 24; ++i) {
      expect_same(got[i], expected[i], "request " + std::to_string(i));
    }
    EXPECT_EQ(tight.load().free_pages + tight.load().kept_pages, tight.load().pages);
  }
}

TEST_F(SchedulerTest, WhatOthersComputedIsTakenOverWithTheSameBytes) {
  const std::vector<TokenId> common = random_ids(200, 5);
  const auto request = [&](uint64_t i) {
    Request out = mixed(i);
    std::vector<TokenId> ids(common.begin(),
                             common.begin() + static_cast<int64_t>(90 + 20 * (i % 5)));
    ids.insert(ids.end(), out.ids.begin(),
               out.ids.begin() + static_cast<int64_t>(out.ids.size() / 4 + 1));
    out.ids = ids;
    return out;
  };
  std::vector<Completion> expected;
  for (uint64_t i = 0; i < 20; ++i) {
    Scheduler one = scheduler();
    expected.push_back(alone(one, request(i)));
    EXPECT_EQ(expected.back().cached_tokens, 0);
  }
  for (const int64_t chunk : {64, 512}) {
    Scheduler shared = scheduler(8192, 16, {.chunk = chunk});
    std::map<uint64_t, Completion> got;
    int64_t cached = 0;
    for (uint64_t i = 0; i < 20; ++i) {
      Request wanted = request(i);
      wanted.reuse_prefix = true;
      shared.add(wanted, {{}, [&, i](Completion c) {
                            cached += c.cached_tokens;
                            got[i] = std::move(c);
                          }});
      if (i % 3 == 0) shared.step();
    }
    while (shared.step()) {
    }
    EXPECT_GT(cached, 500);
    for (uint64_t i = 0; i < 20; ++i) {
      expect_same(got[i], expected[i], "request " + std::to_string(i));
    }
    // The second time all but the end of each prompt is there already.
    for (uint64_t i = 0; i < 20; ++i) {
      Request wanted = request(i);
      wanted.reuse_prefix = true;
      const Completion again = alone(shared, wanted);
      expect_same(again, expected[i], "again, request " + std::to_string(i));
      EXPECT_GE(again.cached_tokens, again.prompt_tokens - 1) << i;
    }
  }
}

TEST_F(SchedulerTest, LivingNeighboursShareThePagesOfOnePrompt) {
  Scheduler shared = scheduler(8192, 16, {.chunk = 512});
  Request request = mixed(0);
  request.ids = random_ids(300, 1);
  request.reuse_prefix = true;
  request.max_new_tokens = 10;
  int64_t cached = 0;
  for (uint64_t i = 0; i < 8; ++i) {
    request.stream = i;
    shared.add(request, {{}, [&](Completion c) { cached += c.cached_tokens; }});
  }
  shared.step();
  shared.step();
  // Four full pages of the prompt once, and the begun one of each sequence.
  EXPECT_LE(shared.load().pages - shared.load().free_pages, 4 + 8);
  while (shared.step()) {
  }
  EXPECT_EQ(cached, 7 * 256);
}

TEST_F(SchedulerTest, ASaltKeepsPrefixesApartAndSoDoesTheNtkFactor) {
  Scheduler shared = scheduler();
  Request request = mixed(3);
  request.ids = random_ids(120, 7);
  request.reuse_prefix = true;
  request.cache_salt = "one";
  EXPECT_EQ(alone(shared, request).cached_tokens, 0);
  EXPECT_EQ(alone(shared, request).cached_tokens, 119);
  request.cache_salt = "two";
  EXPECT_EQ(alone(shared, request).cached_tokens, 0);
  // Longer than twice the trained length: another factor, under which nothing is there yet.
  const std::vector<TokenId> more = random_ids(300, 8);
  request.ids.insert(request.ids.end(), more.begin(), more.end());
  EXPECT_EQ(alone(shared, request).cached_tokens, 0);
}

TEST_F(SchedulerTest, ACancelledRequestIsOverBeforeTheNextStepAndDisturbsNobody) {
  Scheduler one = scheduler();
  const Completion expected = alone(one, mixed(11));
  Scheduler crowd = scheduler();
  Completion kept;
  std::vector<Scheduler::Id> others;
  int ended = 0;
  for (uint64_t i = 20; i < 30; ++i) {
    Request request = mixed(i);
    request.max_new_tokens = 1000;
    others.push_back(crowd.add(request, {{}, [&](Completion c) {
                                           EXPECT_EQ(c.reason, FinishReason::Interrupted);
                                           ++ended;
                                         }}));
  }
  crowd.add(mixed(11), {{}, [&](Completion c) { kept = std::move(c); }});
  for (size_t i = 0; i < others.size(); ++i) {
    if (i > 3) crowd.step();
    crowd.cancel(others[i]);
    EXPECT_EQ(ended, static_cast<int>(i) + 1);
  }
  crowd.cancel(others[0]);  // is over already
  while (crowd.step()) {
  }
  EXPECT_EQ(ended, 10);
  expect_same(kept, expected, "the one that stayed");
  EXPECT_EQ(crowd.load().free_pages, crowd.load().pages);
}

TEST_F(SchedulerTest, ALongPromptDoesNotStopTheStreams) {
  Scheduler crowd = scheduler(8192, 8, {.chunk = 32});
  int tokens = 0;
  Request stream = mixed(0);
  stream.ids = random_ids(10, 2);
  stream.max_new_tokens = 100;
  crowd.add(stream, {[&](const NewToken&) { ++tokens; }, {}});
  crowd.step();
  Request slow = mixed(0);
  slow.ids = random_ids(400, 3);
  bool begun = false;
  crowd.add(slow, {[&](const NewToken&) { begun = true; }, {}});
  int steps = 0;
  const int before = tokens;
  while (!begun) {
    ASSERT_TRUE(crowd.step());
    ++steps;
  }
  EXPECT_GE(steps, 400 / 32);
  EXPECT_EQ(tokens - before, steps);  // one token each step
}

TEST_F(SchedulerTest, AShortPromptNeedNotWaitForALongOne) {
  Scheduler crowd = scheduler(8192, 8, {.chunk = 64});
  std::vector<std::string> order;
  Request slow = mixed(0), quick = mixed(0);
  slow.ids = random_ids(400, 3);
  quick.ids = random_ids(20, 4);
  slow.max_new_tokens = quick.max_new_tokens = 1;
  crowd.add(slow, {{}, [&](Completion) { order.push_back("slow"); }});
  crowd.add(quick, {{}, [&](Completion) { order.push_back("quick"); }});
  crowd.step();
  EXPECT_EQ(order, std::vector<std::string>{"quick"});
  while (crowd.step()) {
  }
  EXPECT_EQ(order.size(), 2u);
}

// Guesses change how many steps a text takes and nothing else.
TEST_F(SchedulerTest, GuessedTokensChangeNoByte) {
  int64_t accepted = 0;
  for (uint64_t i = 0; i < 30; ++i) {
    Request request = mixed(i);
    request.max_new_tokens = 80;
    if (i % 2 == 0) {  // a text that repeats itself
      request.ids = random_ids(8, i);
      for (int copies = 0; copies < 3; ++copies) {
        request.ids.insert(request.ids.end(), request.ids.begin(), request.ids.begin() + 8);
      }
      request.sampling.greedy = true;
    }
    Scheduler plain = scheduler(), guessing = scheduler(8192, 16, {.speculate = 5});
    const Completion expected = alone(plain, request);
    expect_same(alone(guessing, request), expected, "request " + std::to_string(i));
    accepted += guessing.load().accepted_tokens;
    EXPECT_LE(guessing.load().steps, plain.load().steps);
  }
  EXPECT_GT(accepted, 10);
}

TEST_F(SchedulerTest, PromptLogprobsAreThoseOfTheTokensOneByOne) {
  const std::vector<TokenId> ids = random_ids(50, 12);
  Request request;
  request.ids = ids;
  request.max_new_tokens = 0;
  request.prompt_logprobs = 2;
  Scheduler whole = scheduler(8192, 4, {.chunk = 13});
  const Completion out = alone(whole, request);
  ASSERT_EQ(out.prompt_logprobs.size(), 49u);
  for (const size_t length : {1, 2, 13, 14, 49}) {
    Request prefix;
    prefix.ids.assign(ids.begin(), ids.begin() + static_cast<int64_t>(length));
    prefix.max_new_tokens = 1;
    prefix.top_logprobs = model_->config().output_vocab;
    Scheduler one = scheduler();
    const Completion next = alone(one, prefix);
    const auto& all = next.logprobs[0].top;
    const auto expected = std::find_if(all.begin(), all.end(),
                                       [&](const TokenLogprob& t) { return t.id == ids[length]; });
    EXPECT_TRUE(same_bits(out.prompt_logprobs[length - 1].chosen, expected->logprob)) << length;
    EXPECT_EQ(out.prompt_logprobs[length - 1].top[0].id, all[0].id);
  }
}

// Continuations of few-shot prompts, scored from where they begin: what stands before is computed
// once, and no bit depends on order, chunk, neighbours, sharing or threads. Prompts longer than a
// part of the past (512) and continuations of one token take the kernels' other ways.
TEST_F(SchedulerTest, ScoresFromAPositionOnShareWhatStandsBeforeWithTheSameBits) {
  for (const char* name : {"qwen2", "qwen1-bf16"}) {
    const fs::path folder = test::source("tests/fixtures/models") / name;
    model_ = std::make_unique<Model>(folder);
    const std::vector<TokenId> shots = random_ids(601, 21);
    std::vector<Request> asked;
    for (uint64_t question = 0; question < 4; ++question) {
      const std::vector<TokenId> text = random_ids(20 + 31 * question, 30 + question);
      for (uint64_t choice = 0; choice < 4; ++choice) {
        Request request;
        request.ids = shots;
        request.ids.insert(request.ids.end(), text.begin(), text.end());
        request.prompt_logprobs_from = static_cast<int64_t>(request.ids.size());
        const std::vector<TokenId> answer = random_ids(choice < 2 ? 1 : 7, 40 + choice);
        request.ids.insert(request.ids.end(), answer.begin(), answer.end());
        request.prompt_logprobs = 1;
        request.max_new_tokens = choice == 3 ? 2 : 0;
        asked.push_back(std::move(request));
      }
    }
    std::vector<std::vector<Logprobs>> expected;
    for (const Request& request : asked) {
      Request whole = request;
      whole.prompt_logprobs_from = 1;
      Scheduler one = scheduler();
      const std::vector<Logprobs> all = alone(one, whole).prompt_logprobs;
      ASSERT_EQ(all.size(), request.ids.size() - 1);
      expected.emplace_back(all.begin() + request.prompt_logprobs_from - 1, all.end());
    }
    const auto run = [&](Scheduler& together, uint64_t order) {
      Rng rng(order);
      std::vector<size_t> arrivals(asked.size());
      for (size_t i = 0; i < asked.size(); ++i) arrivals[i] = i;
      for (size_t i = asked.size() - 1; i > 0; --i)
        std::swap(arrivals[i], arrivals[rng.below(i + 1)]);
      int64_t cached = 0;
      std::vector<Completion> got(asked.size());
      for (const size_t i : arrivals) {
        Request request = asked[i];
        request.reuse_prefix = true;
        together.add(request, {{}, [&, i](Completion done) {
                                 cached += done.cached_tokens;
                                 got[i] = std::move(done);
                               }});
        for (uint64_t steps = rng.below(3); steps > 0; --steps) together.step();
      }
      while (together.step()) {
      }
      for (size_t i = 0; i < asked.size(); ++i) {
        EXPECT_EQ(got[i].prompt_logprobs.size(), expected[i].size()) << name << i;
        for (size_t j = 0; j < std::min(expected[i].size(), got[i].prompt_logprobs.size()); ++j) {
          EXPECT_TRUE(same_bits(got[i].prompt_logprobs[j].chosen, expected[i][j].chosen))
              << name << ", request " << i << " at " << j;
        }
      }
      return cached;
    };
    for (const int64_t chunk : {64, 512}) {
      Scheduler together = scheduler(16384, 16, {.chunk = chunk});
      // All but one of sixteen find the shots' nine full pages.
      EXPECT_GE(run(together, static_cast<uint64_t>(chunk)), 15 * 9 * 64);
      const int64_t fed = together.load().prompt_tokens - together.load().cached_tokens;
      EXPECT_LE(fed, 601 + 16 * (64 + 20 + 3 * 31 + 7));
      // The second time nothing is fed but what is scored.
      EXPECT_GE(run(together, 9), static_cast<int64_t>(asked.size()) * 601);
    }
    Scheduler tight = scheduler(1024, 6, {.chunk = 100});
    run(tight, 5);
    Model more_threads(folder, {.threads = 2});
    Scheduler threaded(more_threads.network(), nullptr, {.context = 2048}, 8192, 8);
    run(threaded, 6);
  }
}

TEST_F(SchedulerTest, APositionToScoreFromMustLieInThePrompt) {
  Scheduler one = scheduler();
  for (const int64_t from : {int64_t{-1}, int64_t{0}, int64_t{11}}) {
    Request request;
    request.ids = random_ids(10, 1);
    request.prompt_logprobs = 0;
    request.prompt_logprobs_from = from;
    EXPECT_THROW(one.add(request, {}), Error) << from;
  }
}

TEST_F(SchedulerTest, AnEmbeddingIsTheMeanOfTheLastHiddenStates) {
  const std::vector<TokenId> ids = random_ids(70, 13);
  KvCache cache(model_->backend(), model_->config(), DType::F32, 128);
  Runner runner(model_->network(), 128);
  Sequence sequence(cache, model_->config(), model_->engine_options().rules, 70);
  sequence.reserve(70);
  const BatchItem item = {&sequence, ids};
  const ConstRows hidden = runner.forward({&item, 1}, cache, Runner::Want::All);
  std::vector<float> mean(static_cast<size_t>(hidden.cols));
  for (int64_t r = 0; r < hidden.rows; ++r) {
    for (int64_t i = 0; i < hidden.cols; ++i) mean[static_cast<size_t>(i)] += hidden.row(r)[i] / 70;
  }
  Request request;
  request.ids = ids;
  request.max_new_tokens = 0;
  request.pooling = Pooling::Mean;
  Scheduler pieces = scheduler(8192, 4, {.chunk = 17});
  pieces.add(mixed(2), {});
  test::check_close(alone(pieces, request).embedding, mean, {.absolute = 1e-5}, "mean");
  request.pooling = Pooling::Last;
  const std::vector<float> last(hidden.row(69), hidden.row(69) + hidden.cols);
  test::check_close(alone(pieces, request).embedding, last, {}, "last");
}

TEST_F(SchedulerTest, The8BitCacheKeepsItsBytesInACrowdToo) {
  std::vector<Completion> expected;
  const EngineOptions options = {.kv_type = DType::U8, .chunk = 100};
  for (uint64_t i = 0; i < 12; ++i) {
    Scheduler one = scheduler(8192, 4, options);
    expected.push_back(alone(one, mixed(i)));
  }
  Scheduler crowd = scheduler(1500, 8, options);
  std::map<uint64_t, Completion> got;
  for (uint64_t i = 0; i < 12; ++i) {
    crowd.add(mixed(i), {{}, [&got, i](Completion c) { got[i] = std::move(c); }});
    crowd.step();
  }
  while (crowd.step()) {
  }
  for (uint64_t i = 0; i < 12; ++i)
    expect_same(got[i], expected[i], "request " + std::to_string(i));
  EXPECT_EQ(crowd.load().preemptions, 0);
}

class OddTokensOnly : public Constraint {
 public:
  void mask(std::span<float> logits) override {
    for (size_t id = 0; id < logits.size(); id += 2) logits[id] = -INFINITY;
  }
  void accept(TokenId id) override { EXPECT_EQ(id % 2, 1); }
};

TEST_F(SchedulerTest, AConstraintMasksWhatMayBeChosen) {
  Request request = mixed(1);
  request.constraint = std::make_shared<OddTokensOnly>();
  Scheduler one = scheduler();
  const Completion out = alone(one, request);
  EXPECT_FALSE(out.ids.empty());
  for (const TokenId id : out.ids) EXPECT_EQ(id % 2, 1);
}

class NothingAllowed : public Constraint {
 public:
  void mask(std::span<float> logits) override { std::ranges::fill(logits, -INFINITY); }
  void accept(TokenId) override {}
};

TEST_F(SchedulerTest, AFailureEndsItsOwnRequestOnly) {
  Scheduler one = scheduler();
  const Completion expected = alone(one, mixed(4));
  Scheduler crowd = scheduler();
  Request broken = mixed(5);
  broken.constraint = std::make_shared<NothingAllowed>();
  Completion failed, kept;
  crowd.add(broken, {{}, [&](Completion c) { failed = std::move(c); }});
  crowd.add(mixed(4), {{}, [&](Completion c) { kept = std::move(c); }});
  while (crowd.step()) {
  }
  EXPECT_EQ(failed.reason, FinishReason::Failed);
  EXPECT_THROW(std::rethrow_exception(failed.failure), Error);
  expect_same(kept, expected, "the neighbour");
}

}  // namespace
}  // namespace quern
