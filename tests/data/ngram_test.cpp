// N-gram models: sums, the definition on a small corpus, ARPA files, the filter's rule.
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "data/classify/ngram_model.h"
#include "data/stages/filter.h"
#include "records.h"

namespace quern::test {
namespace {

using Words = std::vector<std::string>;

std::vector<Words> sentences_of(std::initializer_list<const char*> lines) {
  std::vector<Words> out;
  for (const char* line : lines) out.push_back(ngram_words(line));
  return out;
}

std::vector<Words> corpus() {
  std::vector<Words> out;
  const char* nouns[] = {"mill", "river", "stone", "wheel", "grain", "flour"};
  uint32_t state = 1;
  const auto next = [&](uint32_t below) {
    state = state * 1664525u + 1013904223u;
    return (state >> 16) % below;
  };
  for (int i = 0; i < 400; ++i) {
    std::string line = "the ";
    line += nouns[next(6)];
    line += next(3) ? " of the " : " and a ";
    line += nouns[next(4)];
    if (next(2)) line += std::string(" turns the ") + nouns[next(6)];
    out.push_back(ngram_words(line));
  }
  return out;
}

double log10_of(const NGramModel& model, const Words& words) {
  NGramModel::Score score;
  model.score(words, score);
  return score.log10;
}

TEST(NGramModel, WordsAreThoseOfComparisons) {
  EXPECT_EQ(ngram_words("The Mill, the MILL: \xE7\xA3\xA8\xE5\x9D\x8A 42!"),
            (Words{"the", "mill", "the", "mill", "\xE7\xA3\xA8", "\xE5\x9D\x8A", "42"}));
}

// Over all words that may follow, the probabilities behind any context add up to one.
TEST(NGramModel, ProbabilitiesAddUpToOne) {
  const NGramModel model = NGramModel::train(corpus(), 3, [](int) {});
  const Words vocabulary = {"the",   "a",     "and",   "of",    "turns", "mill",
                            "river", "stone", "wheel", "grain", "flour", "unheard"};
  for (const Words& context : {Words{}, Words{"the"}, Words{"the", "mill"}, Words{"of", "the"},
                               Words{"unheard", "of"}, Words{"mill", "mill"}}) {
    double total = 0;
    for (const std::string& word : vocabulary) total += model.probability(context, word);
    total += model.probability(context, "</s>");
    EXPECT_NEAR(total, 1, 1e-5) << testing::PrintToString(context);
  }
}

// Chen and Goodman's formulas, worked out by hand: bigrams of "a b", "a b", "a c", ... where the counts
// of counts are too few, so that 0.5, 1 and 1.5 are the discounts.
TEST(NGramModel, IsTheDefinitionOnASmallCorpus) {
  std::vector<int> fallbacks;
  const NGramModel model = NGramModel::train(sentences_of({"a b", "a b", "a c"}), 2,
                                             [&](int order) { fallbacks.push_back(order); });
  EXPECT_EQ(fallbacks, (std::vector<int>{1, 2}));
  // Unigrams count different words before them: a 1 (<s>), b 1 (a), c 1 (a), </s> 2 (b, c): 5.
  // Of 1 each three, of 2 one: the rest is (0.5 * 3 + 1) / 5 = 0.5, over 5 words (with <unk>).
  const double rest = 0.5 / 5;
  const double b1 = 0.5 / 5 + rest, c1 = b1, end1 = 1.0 / 5 + rest;
  EXPECT_NEAR(model.probability({"unheard"}, "unheard"), rest, 1e-6);
  // Behind a: b twice, c once, of 3: discounts 1 and 0.5, the rest 1.5 / 3.
  EXPECT_NEAR(model.probability({"a"}, "b"), (2 - 1.0) / 3 + 0.5 * b1, 1e-6);
  EXPECT_NEAR(model.probability({"a"}, "c"), (1 - 0.5) / 3 + 0.5 * c1, 1e-6);
  EXPECT_NEAR(model.probability({"a"}, "</s>"), 0.5 * end1, 1e-6);
}

TEST(NGramModel, ArpaReadsBackAndWhatIsWrongIsNamed) {
  const NGramModel model = NGramModel::train(corpus(), 4, [](int) {});
  const std::string arpa = model.arpa();
  const NGramModel read = NGramModel::parse_arpa(arpa, "m");
  EXPECT_EQ(read.order(), 4);
  for (const char* line :
       {"the mill of the river turns the wheel", "a stone", "grain unheard of"}) {
    EXPECT_NEAR(log10_of(read, ngram_words(line)), log10_of(model, ngram_words(line)), 1e-5);
  }
  const auto problem = [](const std::string& text) -> std::string {
    try {
      NGramModel::parse_arpa(text, "m");
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Kind::BadInput);
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(problem(""), "m: is no whole ARPA file");
  EXPECT_EQ(problem(arpa.substr(0, arpa.size() - 8)), "m: is no whole ARPA file");
  EXPECT_EQ(problem("\\data\\\nngram 1=2\n\n\\1-grams:\n-1\ta\n\n\\end\\\n"),
            "m: has 1 1-grams, its head counts 2");
  EXPECT_EQ(problem("\\data\\\nngram 1=1\n\\1-grams:\nx\ta\n\\end\\\n"),
            "m: line 4: 'x' is no number");
  EXPECT_EQ(problem("\\data\\\nngram 1=1\n\\1-grams:\n-1\ta b c\n\\end\\\n").substr(0, 20),
            "m: line 4: has 4 wor");
  EXPECT_EQ(
      problem("\\data\\\nngram 1=1\nngram 2=1\n\\1-grams:\n-1\ta\n\\2-grams:\n-1\ta b\n\\end\\\n"),
      "m: line 7: 'b' is no unigram");
  EXPECT_THROW(NGramModel::train({}, 3, [](int) {}), Error);
}

TEST(NGramModel, RarerTextIsMorePerplexing) {
  const TempFolder folder;
  folder.write("m.arpa", NGramModel::train(corpus(), 3, [](int) {}).arpa());
  folder.write("in.jsonl",
               "{\"id\": 1, \"text\": \"The mill of the river turns the stone\"}\n"
               "{\"id\": 2, \"text\": \"stone stone flour and wheel a a turns\"}\n"
               "{\"id\": 3, \"text\": \"...\"}\n");
  StageSettings settings({"rules=ngram", "ngram.model=" + (folder.path() / "m.arpa").string(),
                          "ngram.max_perplexity=20"});
  const auto stage = make_filter_stage(settings);
  StageOptions options;
  options.inputs = {folder.path() / "in.jsonl"};
  options.out = folder.path() / "out";
  const StageReport report = run_stage(*stage, options);
  EXPECT_EQ(report.out, 1);
  EXPECT_EQ(report.dropped, (std::map<std::string, int64_t>{{"ngram.max_perplexity", 2}}));
}

}  // namespace
}  // namespace quern::test
