// Merge for merge what the reference trainer learns: fixtures, tokenizer/train.
#include "text/bpe_trainer.h"

#include <map>

#include "core/file.h"
#include "core/json.h"
#include "core/rng.h"
#include "core/utf8.h"
#include "support/support.h"
#include "text/pieces.h"
#include "text/unicode.h"

namespace quern {
namespace {

std::string hex(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) {
    constexpr char kDigits[] = "0123456789abcdef";
    out += kDigits[static_cast<unsigned char>(byte) >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

class Goldens : public testing::TestWithParam<const char*> {};

TEST_P(Goldens, MergesInTheReferencesOrder) {
  const fs::path folder = test::shared("fixtures/tokenizer/train");
  QUERN_NEED(folder);
  const Json golden = Json::parse_file((folder / (std::string(GetParam()) + ".json")).string());
  BpeTrainer trainer;
  trainer.add(read_file(folder / golden.at("corpus").string()));
  const auto specials = static_cast<int64_t>(golden.at("special_tokens").size());
  const TrainedBpe trained = trainer.train({.vocab = golden.at("vocab_size").integer() - specials,
                                            .min_frequency = golden.at("min_frequency").integer()});
  const Json merges = golden.at("merges_hex");
  ASSERT_EQ(trained.merges.size(), merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const Bpe::Merge& merge = trained.merges[i];
    ASSERT_EQ(hex(trained.tokens[static_cast<size_t>(merge.left)]), merges[i][0].string())
        << "merge " << i;
    ASSERT_EQ(hex(trained.tokens[static_cast<size_t>(merge.right)]), merges[i][1].string())
        << "merge " << i;
  }
}
INSTANTIATE_TEST_SUITE_P(Fixtures, Goldens,
                         testing::Values("corpus_1024", "corpus_4096", "ties_320"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST(BpeTrainer, WhatTwoHaveCountedTogetherIsWhatOneCounts) {
  Rng rng(51);
  std::vector<std::string> texts;
  for (int i = 0; i < 200; ++i) {
    std::string text;
    for (uint64_t n = rng.below(300); n > 0; --n) {
      text += std::string_view("aab bc\n1.\u4e2d\u56fd'")[rng.below(16)];
    }
    std::string storage;
    texts.emplace_back(unicode::to_valid_utf8(text, storage));
  }
  BpeTrainer one, first, second;
  for (size_t i = 0; i < texts.size(); ++i) {
    one.add(texts[i]);
    (i % 3 == 0 ? first : second).add(texts[i]);
  }
  first.add(second);
  EXPECT_EQ(first.words(), one.words());
  const TrainedBpe a = one.train({.vocab = 600}), b = first.train({.vocab = 600});
  EXPECT_EQ(a.tokens, b.tokens);
  ASSERT_EQ(a.merges.size(), b.merges.size());
  EXPECT_GT(a.merges.size(), 100U);
}

// Counting cuts blocks and looks words up by a hash; a map of what piece_end cuts is the
// definition.
TEST(WordCounts, AreThoseOfAMap) {
  Rng rng(52);
  for (int round = 0; round < 50; ++round) {
    std::string text;
    for (uint64_t n = rng.below(4000); n > 0; --n) {
      const char32_t points[] = {U'a', U'b', U' ', U'\n', U'1', U'.', U'\u4e2d', U'\u00e9', U'\''};
      utf8::append(text, points[rng.below(std::size(points))]);
    }
    std::map<std::string, int64_t> expected, counted;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = piece_end(text, begin);
      ++expected[text.substr(begin, end - begin)];
      begin = end;
    }
    WordCounts counts;
    for_each_piece(text, [&](std::string_view word) { counts.add(word); });
    for (size_t i = 0; i < counts.size(); ++i) {
      counted.emplace(counts.word(i), counts.times(i));
    }
    ASSERT_EQ(counted, expected);
  }
}

TEST(BpeTrainer, EndsWhenNoPairIsLeft) {
  BpeTrainer trainer;
  trainer.add("ab ab");
  // "ab" and " ab": three pairs, all of them joined.
  EXPECT_EQ(trainer.train({.vocab = 1000}).tokens.size(), 256U + 2U);
}

TEST(BpeTrainer, RarePairsAreLeftAlone) {
  BpeTrainer trainer;
  trainer.add("aa aa bc");
  const TrainedBpe trained = trainer.train({.vocab = 1000, .min_frequency = 2});
  ASSERT_EQ(trained.merges.size(), 1U);
  EXPECT_EQ(trained.tokens.back(), "aa");
}

}  // namespace
}  // namespace quern
