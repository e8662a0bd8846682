// Runs over a source that answers by a rule: what is kept, resumed, drawn and compared.
#include "evaluate/run.h"

#include <map>

#include "evaluate/paired.h"
#include "evaluate/results.h"
#include "support/support.h"

namespace quern {
namespace {

// Answers gsm8k with the question's length, and stops where it is told to.
class RuleSource : public AnswerSource {
 public:
  void answer(std::span<const Question> questions,
              const std::function<void(size_t, ItemAnswer)>& take,
              const std::atomic<bool>& cancel) override {
    for (size_t i = 0; i < questions.size(); ++i) {
      if (cancel || answered == most) return;
      ItemAnswer answer;
      answer.response.text = "The answer is " + std::to_string(questions[i].item->question.size());
      answer.finish = "stop";
      ++answered;
      take(i, std::move(answer));
    }
  }
  nlohmann::ordered_json identity() const override { return {{"name", name}}; }
  bool is_chat() const override { return false; }

  std::string name = "rule";
  int64_t answered = 0, most = 1 << 30;
};

// GSM8K of `count` questions "q", "qq", ...: the rule is right on every second.
fs::path benchmark(const test::TempFolder& folder, int count) {
  fs::create_directories(folder.path() / "gsm8k");
  folder.write("gsm8k/fewshot_8.jsonl",
               "{\"question\": \"a\", \"rationale\": \"b\", \"answer\": \"1\"}\n");
  std::string records;
  for (int i = 1; i <= count; ++i) {
    records += "{\"question\": \"" + std::string(static_cast<size_t>(i), 'q') +
               "\", \"answer\": \"#### " + std::to_string(i % 2 == 0 ? i : 999) + "\"}\n";
  }
  folder.write("gsm8k/test.jsonl", records);
  return folder.path();
}

TEST(Run, GoesOnWhereItWasInterruptedAndEndsInTheSameResult) {
  const test::TempFolder folder;
  const DataFolder data(benchmark(folder, 10));
  const Task& task = find_task("gsm8k");
  RuleSource whole;
  RunOptions options;
  const TaskRun straight = run_task(task, data, whole, options);
  EXPECT_EQ(straight.score.summary.all.parity[0].second.value, 50);

  const fs::path cache = folder.path() / "answers.sqlite";
  RuleSource source;
  source.most = 4;
  {
    AnswerStore store(cache);
    options.store = &store;
    test::expect_error([&] { run_task(task, data, source, options); }, Kind::Partial,
                       {"4 of 10", "goes on from there"});
  }
  AnswerStore store(cache);
  options.store = &store;
  source.most = 1 << 30;
  const TaskRun resumed = run_task(task, data, source, options);
  EXPECT_EQ(source.answered, 10);  // none was asked twice
  EXPECT_EQ(samples_jsonl(resumed), samples_jsonl(straight));
  EXPECT_EQ(result_json(resumed, "m", source.identity(), {}),
            result_json(straight, "m", whole.identity(), {}));
  // Another model's answers are others.
  source.name = "another";
  run_task(task, data, source, options);
  EXPECT_EQ(source.answered, 20);
}

TEST(Run, AStoreOfAnotherKindIsRefused) {
  const test::TempFolder folder;
  const fs::path file = folder.write("answers.sqlite", std::string(8192, 'x'));
  test::expect_error([&] { AnswerStore store(file); }, Kind::BadInput,
                     {"answers.sqlite", "--cache"});
}

TEST(Run, ADrawIsEvenOverSubjectsAndFixedByItsSeed) {
  std::vector<Item> items;
  for (int i = 0; i < 60; ++i) {
    Item item;
    item.subset = std::string(1, static_cast<char>('a' + i % 3));
    item.index = i;
    items.push_back(std::move(item));
  }
  const auto drawn = draw_items(items, 7, 1);
  ASSERT_EQ(drawn.size(), 7u);
  std::map<std::string, int> subjects;
  for (size_t i = 0; i < drawn.size(); ++i) {
    ++subjects[*drawn[i].subset];
    EXPECT_TRUE(i == 0 || drawn[i - 1].index < drawn[i].index);
  }
  for (const auto& [subject, count] : subjects) EXPECT_TRUE(count == 2 || count == 3) << subject;
  const auto places = [](const std::vector<Item>& list) {
    std::vector<int64_t> all;
    for (const Item& item : list) all.push_back(item.index);
    return all;
  };
  EXPECT_EQ(places(draw_items(items, 7, 1)), places(drawn));
  EXPECT_NE(places(draw_items(items, 7, 2)), places(drawn));
  EXPECT_EQ(draw_items(items, 0, 1).size(), 60u);
}

// Writes a right program for every third draw.
class Drawing : public AnswerSource {
 public:
  void answer(std::span<const Question> questions,
              const std::function<void(size_t, ItemAnswer)>& take,
              const std::atomic<bool>&) override {
    for (size_t i = 0; i < questions.size(); ++i) {
      EXPECT_NE(questions[i].sampling, nullptr);
      ItemAnswer answer;
      answer.response.text =
          questions[i].item->sample % 3 == 0 ? "    return 7\n" : "    return 8\n";
      ++asked;
      take(i, std::move(answer));
    }
  }
  nlohmann::ordered_json identity() const override { return {{"name", "drawing"}}; }
  bool is_chat() const override { return false; }
  int asked = 0;
};

TEST(Run, ProgramsThatAreDrawnGivePassAtK) {
  const test::TempFolder folder;
  fs::create_directories(folder.path() / "humaneval");
  folder.write("humaneval/HumanEval.jsonl",
               "{\"task_id\": \"HumanEval/0\", \"prompt\": \"def seven():\\n\", \"entry_point\": "
               "\"seven\", \"test\": \"def check(f):\\n    assert f() == 7\\n\"}\n");
  AnswerStore store(folder.path() / "answers.sqlite");
  RunOptions options;
  options.store = &store;
  options.samples_per_task = 12;
  Drawing source;
  const TaskRun run = run_task(find_task("humaneval"), DataFolder(folder.path()), source, options);
  EXPECT_EQ(source.asked, 12);  // each draw has a key of its own
  const auto& values = run.score.summary.all.parity;
  ASSERT_EQ(values.size(), 2u);
  EXPECT_EQ(values[0].first, "pass_at_1");
  EXPECT_NEAR(values[0].second.value, 100.0 * 4 / 12, 1e-9);
  // 1 - C(8, 10) / C(12, 10), and ten of eight cannot be drawn.
  EXPECT_EQ(values[1].first, "pass_at_10");
  EXPECT_NEAR(values[1].second.value, 100, 1e-9);
  EXPECT_EQ(values[0].second.count, 1);
}

TEST(Paired, McNemarIsTheExactBinomialTest) {
  EXPECT_EQ(mcnemar_p(0, 0), 1);
  EXPECT_NEAR(mcnemar_p(0, 5), 2.0 / 32, 1e-12);
  EXPECT_NEAR(mcnemar_p(1, 9), 2.0 * 11 / 1024, 1e-12);
  EXPECT_EQ(mcnemar_p(5, 5), 1);
}

TEST(Paired, ComparesItemsAndRefusesOtherPrompts) {
  const test::TempFolder folder;
  const DataFolder data(benchmark(folder, 10));
  RuleSource source;
  const TaskRun run = run_task(find_task("gsm8k"), data, source, {});
  auto a = nlohmann::json(result_json(run, "m", source.identity(), {}));
  auto b = a;
  b["samples"][0]["correct"] = 1.0;
  const auto differences = compare_results(Json::wrap(a, "a"), Json::wrap(b, "b"));
  ASSERT_EQ(differences.size(), 2u);
  EXPECT_EQ(differences[0].difference, 10);
  EXPECT_EQ(differences[0].changed, std::vector<std::string>{"gsm8k/0"});
  EXPECT_TRUE(differences[1].changed.empty());
  b["prompts_sha256"] = "other";
  test::expect_error([&] { compare_results(Json::wrap(a, "a"), Json::wrap(b, "b")); },
                     Kind::BadInput, {"prompts_sha256"});
}

TEST(Results, MarkupInRepliesStaysText) {
  const test::TempFolder folder;
  const DataFolder data(benchmark(folder, 1));
  RuleSource source;
  const TaskRun run = run_task(find_task("gsm8k"), data, source, {});
  const std::string page = result_html({&run, 1}, "<script>alert(1)</script>");
  EXPECT_EQ(page.find("<script>"), page.npos);
  EXPECT_NE(page.find("1 of 1 items went wrong"), page.npos);
}

}  // namespace
}  // namespace quern
