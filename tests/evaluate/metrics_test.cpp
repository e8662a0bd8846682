// Metrics against what sacrebleu 2.6.0, rouge-score 0.1.2 and thefuzz 0.22.1 with rapidfuzz 3.14.6
// gave for the same texts.
#include "core/json.h"
#include "evaluate/metrics/bleu.h"
#include "evaluate/metrics/pass_at_k.h"
#include "evaluate/metrics/rouge.h"
#include "evaluate/metrics/wratio.h"
#include "formats/byte_source.h"
#include "support/support.h"

namespace quern {
namespace {

std::vector<Json> goldens(const std::string& file) {
  const fs::path path = test::source("tests/fixtures/evaluation/metrics") / file;
  LineReader lines(ByteSource::open(path), path.string(), 1 << 24);
  std::vector<Json> all;
  for (std::string line; lines.next(line);) all.push_back(Json::parse(line, file));
  return all;
}

std::vector<std::string> strings(const Json& list) {
  std::vector<std::string> all;
  for (const Json& item : list.items()) all.push_back(item.string());
  return all;
}

TEST(Bleu, EqualsSacrebleuOnCorporaOfAllKinds) {
  int seen = 0;
  for (const Json& golden : goldens("bleu.jsonl.gz")) {
    const auto tokenizer = bleu_tokenizer_from_name(golden.at("tokenize").string());
    const BleuScore score =
        corpus_bleu(strings(golden.at("hyp")), strings(golden.at("ref")), *tokenizer);
    const std::string where = "corpus " + std::to_string(seen++);
    EXPECT_NEAR(score.bleu, golden.at("bleu").number(), 1e-9) << where;
    EXPECT_NEAR(score.brevity_penalty, golden.at("bp").number(), 1e-12) << where;
    EXPECT_EQ(score.counts.hypothesis_tokens, golden.at("sys_len").integer()) << where;
    EXPECT_EQ(score.counts.reference_tokens, golden.at("ref_len").integer()) << where;
    for (size_t n = 0; n < 4; ++n) {
      EXPECT_NEAR(score.precisions[n], golden.at("precisions")[n].number(), 1e-9) << where;
      EXPECT_EQ(score.counts.matches[n], golden.at("counts")[n].integer()) << where;
    }
  }
  EXPECT_EQ(seen, 200);
}

TEST(Bleu, TokensOfChineseAreCharactersAndCurlyQuotesStandAlone) {
  EXPECT_EQ(bleu_tokenize("他说“好的”，对吗？GPT-4", BleuTokenizer::Chinese),
            "他 说 “ 好 的 ” ， 对 吗 ？ GPT-4");
  EXPECT_EQ(bleu_tokenize("It's 1,000.5, e-mail 10-15 &quot;x&quot;.", BleuTokenizer::Mteval13a),
            "It's 1,000.5 , e-mail 10 - 15 \" x \" .");
}

TEST(RougeL, EqualsRougeScore) {
  int seen = 0;
  for (const Json& golden : goldens("rouge_l.jsonl")) {
    std::string texts[2];
    for (int side = 0; side < 2; ++side) {
      for (const std::string& token : strings(golden.at(side == 0 ? "hyp" : "ref"))) {
        texts[side] += token + " ";
      }
    }
    const RougeScore score = rouge_l(texts[0], texts[1]);
    EXPECT_NEAR(score.f1, golden.at("f1").number(), 1e-12) << seen;
    EXPECT_NEAR(score.precision, golden.at("precision").number(), 1e-12) << seen;
    EXPECT_NEAR(score.recall, golden.at("recall").number(), 1e-12) << seen;
    ++seen;
  }
  EXPECT_EQ(seen, 200);
}

TEST(WRatio, EqualsRapidfuzzToTheLastBitAndThefuzzRounded) {
  int seen = 0;
  for (const Json& golden : goldens("wratio.jsonl.gz")) {
    const std::string &a = golden.at("a").string(), &b = golden.at("b").string();
    EXPECT_EQ(wratio(a, b), golden.at("raw").number()) << a << " | " << b;
    EXPECT_EQ(fuzzy_score(a, b), golden.at("score").integer()) << a << " | " << b;
    ++seen;
  }
  EXPECT_EQ(seen, 1000);
}

TEST(WRatio, TheFirstOfEqualChoicesWins) {
  const std::vector<std::string> choices = {"red", "blue", "blue"};
  EXPECT_EQ(most_alike("the blue one", choices).index, 1u);
  EXPECT_EQ(most_alike("", choices).index, 0u);
}

TEST(PassAtK, IsTheUnbiasedEstimate) {
  int seen = 0;
  for (const Json& golden : goldens("pass_at_k.jsonl")) {
    std::vector<SampleCounts> tasks;
    for (const Json& task : golden.at("tasks").items()) {
      tasks.push_back({task.at("n").integer(), task.at("c").integer()});
    }
    for (const auto& [k, value] : golden.at("pass_at").members()) {
      EXPECT_NEAR(pass_at_k(tasks, std::stoll(k)), value.number(), 1e-12);
    }
    ++seen;
  }
  EXPECT_EQ(seen, 40);
}

}  // namespace
}  // namespace quern
