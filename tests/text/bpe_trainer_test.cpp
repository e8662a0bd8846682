// Merge for merge what the reference trainer learns: fixtures, tokenizer/train.
#include "text/bpe_trainer.h"

#include "core/file.h"
#include "core/json.h"
#include "support/support.h"

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
