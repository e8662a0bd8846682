// Items put to a server: what is asked, and what is left when it dies half-way.
#include "evaluate/server_source.h"

#include "evaluate/run.h"
#include "support/support.h"

namespace quern {
namespace {

// Answers `most` requests, then is gone.
class Server : public Answerer {
 public:
  std::string name() const override { return "model at http://server"; }

  std::vector<Answer> complete(std::span<const CompleteRequest> requests,
                               const CompleteEvents& events, const std::atomic<bool>*) override {
    std::vector<Answer> answers(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      asked.push_back(requests[i]);
      if (answered++ < most) {
        answers[i].text = "The answer is 7";
        answers[i].finish = FinishReason::Stop;
      } else {
        answers[i].failure = "connection refused";
      }
      events.done(i, answers[i]);
    }
    return answers;
  }

  std::vector<Likelihood> log_likelihood(std::span<const LikelihoodRequest> requests,
                                         const LikelihoodDone& done,
                                         const std::atomic<bool>*) override {
    std::vector<Likelihood> out(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      out[i].known = echoes;
      out[i].failure = "the server gives no log-probabilities of prompts";
      out[i].failure_kind = Kind::Unsupported;
      out[i].sum = requests[i].continuation == " C" ? -0.5 : -2;
      done(i, out[i]);
    }
    return out;
  }

  bool offers(const OrderedJson&) const override { return false; }
  bool keeps_grammars() const override { return false; }

  std::vector<CompleteRequest> asked;
  int64_t answered = 0, most = 1 << 30;
  bool echoes = true;
};

struct Benchmark {
  Benchmark() {
    fs::create_directories(folder.path() / "gsm8k");
    fs::create_directories(folder.path() / "aqua");
    folder.write("gsm8k/fewshot_8.jsonl",
                 "{\"question\": \"a\", \"rationale\": \"b\", \"answer\": \"1\"}\n");
    std::string problems, choices;
    for (int i = 0; i < 40; ++i) {
      const std::string question = "{\"question\": \"q" + std::to_string(i) + "\", ";
      problems += question + "\"answer\": \"#### 7\"}\n";
      choices +=
          question +
          "\"options\": [\"A)1\", \"B)2\", \"C)3\", \"D)4\", \"E)5\"], \"correct\": \"C\"}\n";
    }
    folder.write("gsm8k/test.jsonl", problems);
    folder.write("aqua/test.jsonl", choices);
  }
  test::TempFolder folder;
};

TEST(ServerSource, TextsAndChoicesAreScoredAsAModelsAre) {
  const Benchmark benchmark;
  const DataFolder data(benchmark.folder.path());
  Server server;
  ServerSource source(server);
  const TaskRun texts = run_task(find_task("gsm8k"), data, source, {});
  EXPECT_EQ(texts.score.summary.all.parity[0].second.value, 100);
  ASSERT_EQ(server.asked.size(), 40u);
  EXPECT_EQ(server.asked[0].stop, (std::vector<std::string>{"\n\n", "Question:"}));
  EXPECT_EQ(server.asked[0].sampling.greedy, true);
  EXPECT_EQ(server.asked[0].max_new_tokens, 512);
  const TaskRun choices = run_task(find_task("aqua"), data, source, {});
  EXPECT_EQ(choices.score.summary.all.parity[0].second.value, 100);
  EXPECT_EQ(choices.score.samples[0].response.choice_logprobs,
            (std::vector<double>{-2, -2, -0.5, -2, -2}));
}

TEST(ServerSource, WhatWasAnsweredBeforeTheServerDiedIsKept) {
  const Benchmark benchmark;
  const DataFolder data(benchmark.folder.path());
  AnswerStore store(benchmark.folder.path() / "answers.sqlite");
  RunOptions options;
  options.store = &store;
  Server server;
  server.most = 35;
  ServerSource source(server);
  test::expect_error([&] { run_task(find_task("gsm8k"), data, source, options); }, Kind::Partial,
                     {"gsm8k/35", "connection refused", "kept"});
  server.most = 1 << 30;
  server.asked.clear();
  const TaskRun run = run_task(find_task("gsm8k"), data, source, options);
  EXPECT_EQ(server.asked.size(), 5u);
  EXPECT_EQ(run.score.samples.size(), 40u);
}

TEST(ServerSource, OneThatEchoesNoLogProbabilitiesIsRefused) {
  const Benchmark benchmark;
  const DataFolder data(benchmark.folder.path());
  Server server;
  server.echoes = false;
  ServerSource source(server);
  test::expect_error([&] { run_task(find_task("aqua"), data, source, {}); }, Kind::Unsupported,
                     {"aqua/0", "no log-probabilities"});
}

}  // namespace
}  // namespace quern
