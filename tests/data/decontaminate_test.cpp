// Questions of evaluation sets in text, against the overlaps that are known and planted ones.
#include "data/stages/decontaminate.h"

#include <gtest/gtest.h>

#include <set>

#include "core/json.h"
#include "core/rng.h"
#include "records.h"

namespace quern {
namespace {

using test::at;

constexpr const char* kQuestion =
    "A baker sold 12 loaves on Monday and twice as many on Tuesday; how many loaves did he sell?";

TEST(Decontaminate, FindsAQuestionHoweverItIsWritten) {
  const QuestionIndex index({{"t", "1", kQuestion}}, {});
  const std::string text =
      "Before. A BAKER sold 12 loaves, on Monday - and twice\nas many on Tuesday: how many loaves "
      "did he sell? After.";
  const auto hits = index.find(text);
  ASSERT_EQ(hits.size(), 1u);
  EXPECT_EQ(hits[0].covered, 1);
  EXPECT_EQ(text.substr(hits[0].begin, hits[0].end - hits[0].begin),
            "A BAKER sold 12 loaves, on Monday - and twice\nas many on Tuesday: how many loaves "
            "did he sell");
  EXPECT_TRUE(index.find("A baker sold loaves on Monday.").empty());
}

// The 19 words of the question have seven 13-grams; the text below holds the first four of them.
TEST(Decontaminate, CountsThePartOfAQuestionThatATextHolds) {
  const std::string part =
      "A baker sold 12 loaves on Monday and twice as many on Tuesday; how many loaves?";
  const auto find = [&](double cover) {
    return QuestionIndex({{"t", "1", kQuestion}}, {.cover = cover}).find(part);
  };
  ASSERT_EQ(find(0.5).size(), 1u);
  EXPECT_DOUBLE_EQ(find(0.5)[0].covered, 4.0 / 7);
  EXPECT_TRUE(find(0.58).empty());
  EXPECT_EQ(find(0).size(), 1u);
}

TEST(Decontaminate, TakesShortQuestionsWholeAndNamesThoseTooShort) {
  const QuestionIndex index({{"t", "1", "中国最长的河流是哪一条"}, {"t", "2", "What is it?"}}, {});
  EXPECT_FALSE(index.too_short(0));
  EXPECT_TRUE(index.too_short(1));
  EXPECT_EQ(index.find("问：中国最长的河流，是哪一条？").size(), 1u);
  EXPECT_TRUE(index.find("中国最长的河流是哪条。What is it?").empty());
}

TEST(Decontaminate, MaskCutsThePassageAndKeepsTheDocument) {
  test::TempFolder folder;
  const QuestionIndex index({{"t", "7", kQuestion}}, {});
  StageOptions where;
  where.inputs = {
      folder.write("in.jsonl", std::string("{\"id\": \"a\", \"text\": \"Before. ") + kQuestion +
                                   " After.\"}\n{\"id\": \"b\", \"text\": \"Nothing.\"}\n")};
  where.out = folder.path() / "out";
  const DecontaminateOptions options = {.mask = true};
  const StageReport report = run_stage(*make_decontaminate_stage(index, options), where);
  EXPECT_EQ(report.out, 2);
  const auto kept = test::read_records(where.out / "shard-00000.jsonl.zst");
  EXPECT_EQ(at(kept[0], "text").text, "Before. ? After.");
  const auto tasks = report_contamination(index, where.out);
  ASSERT_EQ(tasks.size(), 1u);
  EXPECT_EQ(tasks[0].found, 1);
  const auto hits = test::read_records(where.out / "contamination.jsonl");
  ASSERT_EQ(hits.size(), 1u);
  EXPECT_EQ(at(hits[0], "document").text, "a");
  EXPECT_EQ(at(hits[0], "question").text, "7");
}

TEST(Decontaminate, ReadsQuestionsOfJsonAndCsv) {
  test::TempFolder folder;
  folder.write("a.jsonl", "{\"task_id\": \"x/1\", \"prompt\": \"one\"}\n{\"query\": \"two\"}\n");
  folder.write("b.csv", "id,question,A\n5,three,x\n");
  folder.write("c.csv", "four,x,y\nfive,x,y\n");
  const auto questions = read_questions({folder.path().string()}, "");
  std::vector<std::pair<std::string, std::string>> got;
  for (const Question& question : questions) got.emplace_back(question.id, question.text);
  EXPECT_EQ(got, (std::vector<std::pair<std::string, std::string>>{{"x/1", "one"},
                                                                   {"line 2", "two"},
                                                                   {"5", "three"},
                                                                   {"row 1", "four"},
                                                                   {"row 2", "five"}}));
  EXPECT_THROW(read_questions({(folder.path() / "a.jsonl").string()}, "text"), Error);
}

// 112 questions of the whole SVAMP overlap with the training text; nine tenths of it are here.
TEST(Decontaminate, FindsTheOverlapsThatAreKnown) {
  const fs::path data = test::shared("data");
  QUERN_NEED(data);
  const auto found = [&](const std::string& train, const std::vector<std::string>& against) {
    std::vector<std::string> files;
    for (const std::string& name : against) files.push_back((data / "eval" / name).string());
    const QuestionIndex index(read_questions(files, ""), {.cover = 0});
    std::set<size_t> out;
    for (const OrderedJson& record : test::read_records(data / "train" / train)) {
      for (const auto& hit : index.find(at(record, "text").text)) out.insert(hit.question);
    }
    return static_cast<double>(out.size());
  };
  EXPECT_NEAR(found("math.jsonl.gz", {"svamp"}), 112, 11.2);
  EXPECT_EQ(found("code.jsonl.gz", {"humaneval"}), 2);
  EXPECT_NEAR(found("zh.jsonl.gz", {"ceval/test", "ceval/val"}), 17, 1.7);
  EXPECT_NEAR(found("zh.jsonl.gz", {"cmmlu/test"}), 11, 1.1);
}

TEST(Decontaminate, FindsPlantedQuestionsAndLeavesCleanTextAlone) {
  const fs::path data = test::shared("data");
  QUERN_NEED(data);
  std::vector<std::string> files;
  for (const char* name : {"gsm8k/test.jsonl", "mmlu/test", "ceval/test", "cmmlu/test", "aqua"}) {
    files.push_back((data / "eval" / name).string());
  }
  const QuestionIndex index(read_questions(files, ""), {});
  std::vector<std::string> texts;
  size_t documents = 0, hit = 0;
  for (const char* name : {"en_stories.jsonl.gz", "zh.jsonl.gz"}) {
    for (const OrderedJson& record : test::read_records(data / "train" / name)) {
      texts.push_back(at(record, "text").text);
      ++documents;
      hit += !index.find(texts.back()).empty();
    }
  }
  EXPECT_LE(hit * 1000, documents);
  Rng rng(1);
  size_t planted = 0, seen = 0;
  while (planted < 500) {
    const size_t question = rng.below(index.questions().size());
    if (index.too_short(question)) continue;
    ++planted;
    std::string text = texts[rng.below(texts.size())];
    const size_t gap = std::min(text.find('\n'), text.size());
    text.insert(gap, "\n" + index.questions()[question].text + "\n");
    for (const auto& found : index.find(text)) {
      if (index.questions()[found.question].text == index.questions()[question].text) {
        ++seen;
        break;
      }
    }
  }
  EXPECT_GE(static_cast<double>(seen) / 500, 0.99);
}

}  // namespace
}  // namespace quern
