// The verdicts of rejection sampling against those of the paper's own program.
#include "data/rft.h"

#include <gtest/gtest.h>

#include "core/utf8.h"
#include "data/arithmetic.h"
#include "records.h"

namespace quern {
namespace {

using test::at;

TEST(Arithmetic, IsPythons) {
  EXPECT_EQ(evaluate_arithmetic("2+3*4"), 14);
  EXPECT_EQ(evaluate_arithmetic(" (2+3)*4 "), 20);
  EXPECT_EQ(evaluate_arithmetic("-2**2"), -4);
  EXPECT_EQ(evaluate_arithmetic("2**3**2"), 512);
  EXPECT_EQ(evaluate_arithmetic("2**-1"), 0.5);
  EXPECT_EQ(evaluate_arithmetic("7//-2"), -4);
  EXPECT_EQ(evaluate_arithmetic("-7%3"), 2);
  EXPECT_EQ(evaluate_arithmetic(".5+1."), 1.5);
  EXPECT_EQ(evaluate_arithmetic("1_000*2"), 2000);
  for (const char* none : {"", "x", "1,000", "5%", "1/0", "05", "2(3)", "1 2", "(1", "1)",
                           "50 apples", "1e999", "(-8)**0.5", "\xC3\x97", "2**", "1__0"}) {
    EXPECT_EQ(evaluate_arithmetic(none), std::nullopt) << none;
  }
  EXPECT_EQ(evaluate_arithmetic(std::string(100'000, '(')), std::nullopt);
  EXPECT_EQ(evaluate_arithmetic(std::string(100'000, '-') + "1"), std::nullopt);
}

TEST(Rft, ReadsTheFirstAnswer) {
  EXPECT_EQ(final_answer("#### 1,234 dollars\n#### 5"), 1234);
  EXPECT_EQ(final_answer("so\n#### -3.50"), -3.5);
  EXPECT_EQ(final_answer("####5"), std::nullopt);
  EXPECT_EQ(final_answer("#### $5"), std::nullopt);
  EXPECT_EQ(final_answer("#### 1.2.3"), std::nullopt);
}

TEST(Rft, ReadsTheEquationsInOrder) {
  EXPECT_EQ(equations("a <<1+1=2>>2 b <<2*3=6>>6 <<x"),
            (std::vector<std::string>{"1+1=2", "2*3=6"}));
  EXPECT_TRUE(equation_holds("3*4=12.0005"));
  EXPECT_TRUE(equation_holds("1+1=2=7"));  // what stands behind a second sign isn't looked at
  EXPECT_FALSE(equation_holds("3*4=12.01"));
  EXPECT_FALSE(equation_holds("3*4"));
}

TEST(Rft, DistanceIsTheDefinitions) {
  const std::vector<std::string> words = {"",
                                          "kitten",
                                          "sitting",
                                          "你好吗",
                                          "你们好",
                                          std::string(130, 'a') + "b",
                                          "b" + std::string(129, 'a'),
                                          std::string(64, 'x'),
                                          std::string(64, 'x') + "y"};
  const auto plain = [](const std::u32string& a, const std::u32string& b) {
    std::vector<size_t> row(b.size() + 1);
    for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= a.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= b.size(); ++j) {
        const size_t up = row[j];
        row[j] = std::min({up + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
        diagonal = up;
      }
    }
    return row.back();
  };
  const auto wide = [](std::string_view text) {
    std::u32string out;
    for (; !text.empty(); text.remove_prefix(utf8::decode(text).length)) {
      out += utf8::decode(text).value;
    }
    return out;
  };
  for (const auto& a : words) {
    for (const auto& b : words) {
      EXPECT_EQ(character_distance(a, b), plain(wide(a), wide(b))) << a << " " << b;
    }
  }
}

TEST(Rft, VerdictsAreThoseOfThePapersProgram) {
  const fs::path folder = test::shared("data/filter");
  QUERN_NEED(folder);
  std::map<std::string, double> gold;
  for (const OrderedJson& one : test::read_records(folder / "rft_questions.jsonl")) {
    gold[at(one, "id").text] = final_answer(at(one, "answer").text).value();
  }
  std::map<std::string, std::vector<OrderedJson>> replies;
  for (OrderedJson& one : test::read_records(folder / "rft_replies.jsonl")) {
    replies[at(one, "id").text].push_back(std::move(one));
  }
  for (const KeptPath kept : {KeptPath::First, KeptPath::Farthest}) {
    const char* field = kept == KeptPath::First ? "keep_first" : "keep_farthest";
    for (const auto& [id, list] : replies) {
      std::vector<std::string> texts;
      for (const OrderedJson& one : list) texts.push_back(at(one, "response").text);
      const auto got = judge_replies(gold.at(id), texts, kept);
      for (size_t i = 0; i < list.size(); ++i) {
        const std::string want = at(list[i], "verdict").text;
        const bool right = want == "keep" || want == "duplicate";
        EXPECT_EQ(got[i] == ReplyVerdict::Keep, at(list[i], field).boolean) << id << " " << i;
        EXPECT_TRUE(right || name_of(got[i]) == want) << id << " " << i << " " << want;
      }
    }
  }
}

TEST(Rft, WritesGoldPathsAndKeptRepliesWithTheCountsOfEachQuestion) {
  test::TempFolder folder;
  const std::string question =
      "{\"id\": \"q\", \"question\": \"2 and 3?\", \"answer\": "
      "\"<<2+3=5>>5\\n#### 5\"}\n";
  RftOptions options;
  options.questions = {folder.write("q.jsonl", question)};
  options.responses = {folder.write(
      "r.jsonl",
      "{\"id\": \"q\", \"response\": \"<<3+2=5>>5\\n#### 5\"}\n"
      "{\"id\": \"q\", \"response\": \"#### 6\"}\n{\"id\": \"other\", \"response\": \"\"}\n")};
  StageOptions stage;
  stage.inputs = {options.questions[0], options.responses[0]};
  stage.out = folder.path() / "out";
  const RftReport report = run_rft(options, stage);
  EXPECT_EQ(report.stage.out, 2);
  EXPECT_EQ(report.stage.bad, 1);
  EXPECT_EQ(report.stage.dropped.at("rft.wrong_answer"), 1);
  EXPECT_EQ(report.solved, 1);
  EXPECT_EQ(at(test::read_records(stage.out / "shard-00000.jsonl.zst").at(0), "path").text, "gold");
  const auto counts = test::read_records(stage.out / "questions.jsonl");
  EXPECT_EQ(at(counts.at(0), "keep").text, "1");
  EXPECT_EQ(at(counts.at(0), "wrong_answer").text, "1");
}

}  // namespace
}  // namespace quern
