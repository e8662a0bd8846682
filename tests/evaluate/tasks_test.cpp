// Prompts, extraction and scores against the reference's, where its data are at hand.
#include <openssl/sha.h>

#include <fstream>
#include <map>

#include "evaluate/extract/numbers.h"
#include "evaluate/extract/programs.h"
#include "evaluate/prompts.h"
#include "evaluate/score.h"
#include "support/support.h"

namespace quern {
namespace {

std::vector<Json> records(const fs::path& path) {
  std::vector<Json> all;
  for_each_record(path, [&](const Json& record, int64_t) { all.push_back(record); });
  return all;
}

fs::path data_folder() { return test::shared("data/eval"); }

std::string place(const std::string& task, const std::string& subset, int64_t index) {
  return task + "|" + subset + "|" + std::to_string(index);
}

// Items of a task by subset and index.
std::map<std::string, Item> items_by_place(const Task& task, const ItemOptions& options = {}) {
  std::map<std::string, Item> all;
  for (Item& item : task.load(DataFolder(data_folder()), options)) {
    all.emplace(place(item.task, item.subset.value_or(""), item.index), std::move(item));
  }
  return all;
}

TEST(Tasks, ItemsAreThoseOfTheTable) {
  QUERN_NEED(data_folder());
  const Json table =
      Json::parse_file(test::source("tests/fixtures/evaluation/tasks.json").string());
  for (const auto& [name, row] : table.members()) {
    const Task& task = find_task(name);
    const auto items = task.load(DataFolder(data_folder()), {});
    EXPECT_EQ(static_cast<int64_t>(items.size()), row.at("items").integer()) << name;
    EXPECT_EQ(task.shots, row.at("shots").integer()) << name;
    std::map<std::string, int> subsets;
    for (const Item& item : items) ++subsets[item.subset.value_or("")];
    subsets.erase("");
    EXPECT_EQ(static_cast<int64_t>(subsets.size()), row.at("subsets").integer()) << name;
    const auto record = item_record(items.front());
    for (const char* field : {"split", "choices", "stop", "max_new_tokens"}) {
      EXPECT_EQ(nlohmann::json(record.at(field)), row.raw().at(field)) << name << " " << field;
    }
  }
}

TEST(Tasks, PromptsEqualTheReferenceByteForByte) {
  const fs::path golden = test::shared("fixtures/evaluation/prompts.jsonl");
  QUERN_NEED(golden);
  QUERN_NEED(data_folder());
  std::map<std::string, std::map<std::string, Item>> loaded;
  int seen = 0;
  for (const Json& record : records(golden)) {
    const std::string task = record.at("task").string();
    const bool pandas = record.string_or("variant", "") == "pandas-none";
    auto& items = loaded[task + (pandas ? "+" : "")];
    if (items.empty()) items = items_by_place(find_task(task), {.pandas_none = pandas});
    const auto found =
        items.find(place(task, record.string_or("subset", ""), record.at("index").integer()));
    ASSERT_NE(found, items.end());
    const auto made = item_record(found->second);
    for (const char* field : {"id", "split", "prompt", "messages", "target"}) {
      const bool has = record.raw().contains(field);
      EXPECT_EQ(has, made.contains(field)) << task << " " << field;
      if (!has) continue;
      EXPECT_EQ(nlohmann::json(made.at(field)), record.raw().at(field)) << found->first;
    }
    ++seen;
  }
  EXPECT_EQ(seen, 198);
}

TEST(Tasks, RecordedRepliesGetTheReferencesVerdicts) {
  const fs::path golden = test::shared("fixtures/evaluation/replies.jsonl");
  QUERN_NEED(golden);
  QUERN_NEED(data_folder());
  const auto replies = records(golden);
  for (const char* name :
       {"chat-ceval", "chat-mmlu", "gsm8k", "chat-gsm8k", "humaneval", "chat-humaneval"}) {
    const Task& task = find_task(name);
    const auto items = items_by_place(task);
    std::vector<Sample> samples;
    std::vector<const Json*> wanted;
    for (const Json& reply : replies) {
      if (reply.at("task").string() != name) continue;
      const auto& item =
          items.at(place(name, reply.string_or("subset", ""), reply.at("index").integer()));
      samples.push_back({&item, {.text = reply.at("response").string()}, {}});
      wanted.push_back(&reply);
    }
    const TaskScore score = score_task(task, DataFolder(data_folder()), std::move(samples), {});
    for (size_t i = 0; i < wanted.size(); ++i) {
      const auto made = sample_json(score.samples[i]);
      const std::string where = std::string(name) + ": " + wanted[i]->at("response").string();
      for (const char* field : {"prediction", "prediction_fixed", "correct", "correct_fixed"}) {
        EXPECT_EQ(nlohmann::json(made.at(field)), wanted[i]->raw().at(field)) << where;
      }
      if (wanted[i]->has("rule")) {
        EXPECT_EQ(made.at("rule").get<int64_t>(), wanted[i]->at("rule").integer()) << where;
      }
    }
  }
}

TEST(Tasks, AveragesAndGroupsAreTheReferences) {
  QUERN_NEED(data_folder());
  const Json golden =
      Json::parse_file(test::source("tests/fixtures/evaluation/choices.json").string());
  for (const auto& [name, wanted] : golden.at("results").members()) {
    const Task& task = find_task(name);
    const auto items = task.load(DataFolder(data_folder()), {});
    std::vector<Sample> samples;
    for (const Item& item : items) {
      const std::string key =
          "shared/" + name + "/" + item.subset.value_or("None") + "/" + std::to_string(item.index);
      unsigned char hash[SHA256_DIGEST_LENGTH];
      SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), hash);
      Response response;
      for (size_t j = 0; j < item.choices.size(); ++j) {
        response.choice_logprobs.push_back(-(hash[j] % 17) / 2.0);
      }
      samples.push_back({&item, std::move(response), {}});
    }
    const TaskScore score = score_task(task, DataFolder(data_folder()), std::move(samples), {});
    EXPECT_NEAR(score.summary.all.parity[0].second.value, wanted.at("acc").number(), 1e-9) << name;
    EXPECT_EQ(score.ties, wanted.at("items_with_a_tie_at_the_top").integer()) << name;
    std::map<std::string, double> groups;
    for (const auto& [group, metrics] : score.summary.groups) {
      groups[group] = metrics.parity[0].second.value;
    }
    for (const auto& [group, value] : wanted.at("groups").members()) {
      EXPECT_NEAR(groups[group], value.number(), 1e-9) << name << " " << group;
    }
  }
}

TEST(Numbers, RulesDifferWhereTheReferenceErrs) {
  EXPECT_EQ(base_number("The answer is $2,000"), "000");
  EXPECT_EQ(fixed_number("The answer is $2,000"), "2000");
  EXPECT_EQ(base_number("x\n\n75"), std::nullopt);
  EXPECT_EQ(chat_number("10-91"), "-91");
  EXPECT_EQ(fixed_number("10-91"), "91");
  EXPECT_EQ(fixed_number("−３．５"), "-3.5");
  EXPECT_FALSE(same_number("018", "18"));
  EXPECT_TRUE(same_number("18.00001", "18"));
}

TEST(Programs, BothRulesTellWhenNothingMoreIsNeeded) {
  EXPECT_FALSE(both_complete("    return x"));
  EXPECT_FALSE(both_complete("    return x\n\n"));          // the better rule goes on
  EXPECT_FALSE(both_complete("    return x\nprint(1)\n"));  // the release's does
  EXPECT_TRUE(both_complete("    return x\n\nprint(1)\n"));
}

TEST(Data, ErrorsNameFileRowAndRemedy) {
  const test::TempFolder folder;
  fs::create_directories(folder.path() / "ceval/val");
  fs::create_directories(folder.path() / "ceval/dev");
  const DataFolder data(folder.path());
  const auto load = [&] { find_task("ceval").load(data, {}); };
  test::expect_error(load, Kind::BadInput, {"holds no file", "ceval-exam"});
  folder.write("ceval/dev/law_dev.csv", "id,question,A,B,C,D,answer\r\n0,q,a,b,c,d,A\r\n");
  folder.write("ceval/val/law_val.csv", "id,question,A,B,C,answer\r\n0,q,a,b,c,A\r\n");
  test::expect_error(load, Kind::BadInput, {"law_val.csv", "no column 'D'"});
  folder.write("ceval/val/law_val.csv", "id,question,A,B,C,D,answer\r\n0,q,a,b,c,d,E\r\n");
  test::expect_error(load, Kind::BadInput, {"law_val.csv", "question 1 is 'E'"});
  folder.write("ceval/val/law_val.csv", "id,question,A,B,C,D,answer\r\n");
  test::expect_error(load, Kind::BadInput, {"law_val.csv", "no rows"});
  folder.write("ceval/val/law_val.csv",
               "\xEF\xBB\xBFid,question,A,B,C,D,answer\r\n0,q,a,b,c,d,B\r\n");
  EXPECT_EQ(find_task("ceval").load(data, {}).size(), 1u);
  test::expect_error([&] { find_task("gsm8k").load(data, {}); }, Kind::BadInput,
                     {"fewshot_8.jsonl", "grade-school-math"});
  test::expect_error([] { find_task("gsm8"); }, Kind::Misused, {"'gsm8'", "did you mean 'gsm8k'"});
}

TEST(Score, AnswersMustFitTheItems) {
  const Item item{.task = "t", .split = "test", .id = "t/0", .choices = {"A", "B"}};
  const std::vector<Item> items = {item};
  int64_t missing = 0;
  const auto match = [&](const std::string& line, bool partial) {
    const test::TempFolder folder;
    return match_responses(items, read_responses(folder.write("r.jsonl", line + "\n")), "r.jsonl",
                           partial, missing);
  };
  EXPECT_EQ(match(R"({"id":"t/0","choice_logprobs":[-1,-2]})", false).size(), 1u);
  test::expect_error([&] { match(R"({"id":"t/0","choice_logprobs":[-1]})", false); },
                     Kind::BadInput, {"1 log-probabilities", "2 choices"});
  test::expect_error([&] { match(R"({"id":"t/9","response":"x"})", true); }, Kind::BadInput,
                     {"t/9"});
  test::expect_error([&] { match(R"({"id":"t/0"})", true); }, Kind::BadInput, {"response"});
  test::expect_error(
      [&] { match(R"({"id":"t/0","choice_logprobs":[-1,-2],"response":"A"})", false); },
      Kind::BadInput, {"choice_logprobs", "response"});
}

}  // namespace
}  // namespace quern
