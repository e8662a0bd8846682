// Expanded vocabularies are those that the release's own tool makes: fixtures, tokenizer/expand.
#include "text/vocab_expansion.h"

#include "support/support.h"
#include "text/byte_bpe_tokenizer.h"
#include "text/load.h"

namespace quern {
namespace {

class Expansion : public testing::TestWithParam<const char*> {};

TEST_P(Expansion, IsTheReleases) {
  const fs::path vocabulary = test::shared("fixtures/tokenizer/qwen.tiktoken");
  QUERN_NEED(vocabulary);
  const RankedTokens ranks = read_tiktoken(vocabulary);
  const std::string name = GetParam();
  const auto file = [&](const char* ending) {
    return test::shared("fixtures/tokenizer/expand/" + name + ending);
  };
  QUERN_NEED(file("_vocab.txt"));
  const std::string list = read_file(file("_vocab.txt"));
  const RankedTokens expected = read_tiktoken(file(".tiktoken"));
  const VocabExpansion made = expand_vocabulary(ranks, list, expected.first_rank);
  EXPECT_EQ(made.tokens.first_rank, expected.first_rank);
  EXPECT_EQ(made.tokens.tokens, expected.tokens);
  // As many warnings as the tool's log has.
  const std::string log = read_file(file("_log.txt"));
  size_t warnings = 0;
  for (size_t at = 0; (at = log.find("WARNING - ", at)) != log.npos; ++at) ++warnings;
  EXPECT_EQ(made.warnings.size(), warnings);
}
INSTANTIATE_TEST_SUITE_P(Fixtures, Expansion, testing::Values("qwen_extra", "mixed"),
                         [](const auto& instance) { return std::string(instance.param); });

RankedTokens bytes_and(const std::vector<std::string>& more) {
  RankedTokens ranks;
  for (int byte = 0; byte < 256; ++byte) ranks.tokens.emplace_back(1, static_cast<char>(byte));
  ranks.tokens.insert(ranks.tokens.end(), more.begin(), more.end());
  return ranks;
}

TEST(VocabExpansion, OtherTextIsEncodedAsBefore) {
  const RankedTokens ranks = bytes_and({"ab", "cd"});
  const VocabExpansion made = expand_vocabulary(ranks, "abcd\t3\nxyz\n", 256 + 2 + 208);
  const auto before = ByteBpeTokenizer::from_ranks(ranks);
  const auto after =
      ByteBpeTokenizer::from_ranks(ranks, ByteBpeTokenizer::Release::Later, &made.tokens);
  for (const char* text : {"ab cd", "abc", "bcd", "yz", "zy", "z y x", "ab\ncd"}) {
    EXPECT_EQ(after->encode(text), before->encode(text)) << text;
  }
  for (const char* text : {"abcd", "xyz"}) EXPECT_EQ(after->encode(text).size(), 1U) << text;
}

// "abc" is to be a + bc of "bcx"'s making, but "ab" is older than both.
TEST(VocabExpansion, AWordOutOfReachIsReported) {
  const VocabExpansion made = expand_vocabulary(bytes_and({}), "bca\t9\nabc\t1\nab\t2\n", 464);
  std::string all;
  for (const std::string& warning : made.warnings) all += warning + "\n";
  const auto tokenizer =
      ByteBpeTokenizer::from_ranks(bytes_and({}), ByteBpeTokenizer::Release::Later, &made.tokens);
  for (const char* word : {"bca", "abc", "ab"}) {
    const bool reached = tokenizer->encode(word).size() == 1;
    EXPECT_EQ(all.find(std::string("'") + word + "' is still") == all.npos, reached) << word;
  }
}

TEST(VocabExpansion, AListThatIsNotUtf8IsRefused) {
  test::expect_error([] { expand_vocabulary(bytes_and({}), "ab\xFF\t1\n", 464); }, Kind::BadInput,
                     {"not UTF-8 at byte 2"});
}

}  // namespace
}  // namespace quern
