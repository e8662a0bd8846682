// Bytes that are no text, texts of list D by name, and one text on many threads.
#include "core/rng.h"
#include "core/utf8.h"
#include "support/support.h"
#include "text/byte_bpe_tokenizer.h"
#include "text/parallel_encode.h"
#include "text/unicode.h"

namespace quern {
namespace {

std::shared_ptr<const ByteBpeTokenizer> tokenizer() {
  static const std::shared_ptr<const ByteBpeTokenizer> made = [] {
    RankedTokens ranks;
    for (int byte = 0; byte < 256; ++byte) ranks.tokens.emplace_back(1, static_cast<char>(byte));
    for (const char* token : {"th", "he", " th", " the", "in", "\n\n", "  ", "é", "中", "\xE4\xB8",
                              "\xCC\x81", "\xE2\x80"}) {
      ranks.tokens.emplace_back(token);
    }
    return ByteBpeTokenizer::from_ranks(ranks);
  }();
  return made;
}

std::string random_bytes(Rng& rng, size_t size) {
  constexpr std::string_view kSome =
      "the in  \n\n'1.\xE4\xB8\xAD\xC3\xA9\xCC\x81\xED\xA0\x80\xFF\xF0\x9F\x98";
  std::string out;
  while (out.size() < size) {
    out += rng.below(8) == 0 ? static_cast<char>(rng.below(256)) : kSome[rng.below(kSome.size())];
  }
  return out;
}

TEST(EncodeBytes, KeptBytesComeBackWhateverTheyAre) {
  Rng rng(51);
  for (int round = 0; round < 20'000; ++round) {
    const std::string bytes = random_bytes(rng, rng.below(200));
    const auto ids = tokenizer()->encode_bytes(bytes, BadText::Keep);
    ASSERT_EQ(tokenizer()->decode_bytes(ids), bytes) << printable(bytes);
  }
}

TEST(EncodeBytes, StrictNamesTheOffset) {
  test::expect_error([] { tokenizer()->encode_bytes("ab\xED\xA0\x80", BadText::Refuse); },
                     Kind::BadInput, {"byte 2 is 0xed"});
  EXPECT_EQ(tokenizer()->encode_bytes("the", BadText::Refuse), tokenizer()->encode("the"));
}

void expect_replaced(std::string_view bytes, std::string_view text) {
  const auto ids = tokenizer()->encode_bytes(bytes, BadText::Replace);
  EXPECT_EQ(tokenizer()->decode(ids), text) << printable(bytes);
}
TEST(TextListD, Overlong) { expect_replaced("a\xC0\xAF", "a\uFFFD\uFFFD"); }
TEST(TextListD, Surrogate) { expect_replaced("\xED\xA0\x80z", "\uFFFD\uFFFD\uFFFDz"); }
TEST(TextListD, CutCharacter) { expect_replaced("\xE4\xB8", "\uFFFD"); }
TEST(TextListD, Nul) {
  const std::string text("a\0b\0\0", 5);
  EXPECT_EQ(tokenizer()->decode(tokenizer()->encode(text)), text);
}
TEST(TextListD, DecomposedAndComposedAreTheSame) {
  EXPECT_EQ(tokenizer()->encode("e\u0301 x e\u0301"), tokenizer()->encode("é x é"));
}
TEST(TextListD, Bidi) {
  const std::string text = "a \u202Eبjש\u202C \u2067x\u2069";
  EXPECT_EQ(tokenizer()->decode(tokenizer()->encode(text)), text);
}

TEST(TextListD, SixtyFourMegabytes) {
  std::string text;
  while (text.size() < (size_t{64} << 20)) text += "the thin thing in the inn, 中中é;\n\n";
  ThreadPool threads(2);
  const auto ids = encode_parallel(*tokenizer(), text, threads);
  EXPECT_EQ(tokenizer()->decode(ids), text);
}

TEST(EncodeParallel, AnyNumberOfThreadsGivesTheSameIds) {
  Rng rng(52);
  for (int round = 0; round < 300; ++round) {
    const std::string text = random_bytes(rng, 1 + rng.below(4000));
    const auto expected = tokenizer()->encode(text);
    for (const int count : {1, 2, 3}) {
      ThreadPool threads(count);
      ASSERT_EQ(encode_parallel(*tokenizer(), text, threads, 1 + rng.below(200)), expected)
          << printable(text);
    }
  }
}

// At each safe cut, and only there is it needed: the parts' ids are the whole's.
TEST(EncodeParallel, SafeCutsAreSafe) {
  Rng rng(53);
  size_t cuts = 0;
  for (int round = 0; round < 3000; ++round) {
    const std::string text = random_bytes(rng, 2 + rng.below(120));
    const auto expected = tokenizer()->encode(text);
    for (size_t at = safe_cut(text, 1); at < text.size(); at = safe_cut(text, at + 1)) {
      auto ids = tokenizer()->encode(text.substr(0, at));
      const auto rest = tokenizer()->encode(text.substr(at));
      ids.insert(ids.end(), rest.begin(), rest.end());
      ASSERT_EQ(ids, expected) << printable(text) << " at " << at;
      ++cuts;
    }
  }
  EXPECT_GT(cuts, 1000U);
}

}  // namespace
}  // namespace quern
