// Tokenizer files that are not what they should be, each refused in one clear line; and texts that
// break careless tokenizers.
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "core/rng.h"
#include "core/utf8.h"
#include "formats/tokenizer_spec.h"
#include "support/support.h"
#include "text/byte_bpe_tokenizer.h"
#include "text/load.h"
#include "text/unicode.h"
#include "text/vocabulary_files.h"

namespace quern {
namespace {

using test::TempFolder;

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    uint32_t word = 0;
    for (size_t k = 0; k < 3; ++k) {
      word = word << 8 | (k < count ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    }
    for (size_t k = 0; k < 4; ++k) out += k <= count ? kDigits[word >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

// All single bytes as ranks 0 to 255, then lines of the test's own.
std::string vocabulary(const std::string& more = "") {
  std::string text;
  for (int byte = 0; byte < 256; ++byte) {
    text += base64(std::string(1, static_cast<char>(byte))) + " " + std::to_string(byte) + "\n";
  }
  return text + more;
}

void expect_bad(const std::string& content, const std::vector<std::string>& parts,
                const std::string& name = "qwen.tiktoken") {
  const TempFolder folder;
  folder.write(name, content);
  test::expect_error([&] { load_tokenizer(folder.path()); }, Kind::BadInput, parts);
}

TEST(TiktokenListC, AGoodOneLoads) {
  const TempFolder folder;
  folder.write("qwen.tiktoken", vocabulary("YWI= 256\n"));
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->encode("ab"), std::vector<TokenId>{256});
  // Without the last line's end it is whole all the same.
  folder.write("qwen.tiktoken", vocabulary("YWI= 256"));
  EXPECT_EQ(load_tokenizer(folder.path())->encode("ab"), std::vector<TokenId>{256});
}
TEST(TiktokenListC, Empty) { expect_bad("", {"holds no tokens"}); }
TEST(TiktokenListC, NoRank) { expect_bad("YWI=\n", {"line 1", "no rank"}); }
TEST(TiktokenListC, ThirdColumn) { expect_bad("YWI= 0 7\n", {"line 1", "'0 7'"}); }
TEST(TiktokenListC, Base64OfBadLength) { expect_bad("YWI 0\n", {"'YWI' is not base64"}); }
TEST(TiktokenListC, Base64OfBadAlphabet) { expect_bad("Y!I= 0\n", {"not base64"}); }
TEST(TiktokenListC, Base64OfBadPadding) { expect_bad("Y=== 0\n", {"not base64"}); }
TEST(TiktokenListC, Base64WithBitsPastTheEnd) { expect_bad("YWJ= 0\n", {"not base64"}); }
TEST(TiktokenListC, Base64ForUrls) { expect_bad("_-8= 0\n", {"not base64"}); }
TEST(TiktokenListC, DuplicateRank) { expect_bad(vocabulary("YWI= 255\n"), {"rank 255", "twice"}); }
TEST(TiktokenListC, DuplicateBytes) { expect_bad(vocabulary("YQ== 256\n"), {"'a'", "twice"}); }
TEST(TiktokenListC, RankGap) { expect_bad(vocabulary("YWI= 258\n"), {"rank 256 is missing"}); }
TEST(TiktokenListC, NegativeRank) { expect_bad("YWI= -1\n", {"rank -1"}); }
TEST(TiktokenListC, HugeRank) { expect_bad("YWI= 2147483648\n", {"2147483648"}); }
TEST(TiktokenListC, RankPast64Bits) { expect_bad("YWI= 99999999999999999999\n", {"not a number"}); }
TEST(TiktokenListC, FewerThanAllSingleBytes) {
  expect_bad("YQ== 0\nYg== 1\nYWI= 2\n", {"single byte 0"});
}
TEST(TiktokenListC, CarriageReturns) { expect_bad("YQ== 0\r\nYg== 1\r\n", {"line 1", "\\x0d"}); }
TEST(TiktokenListC, ByteOrderMark) { expect_bad("\xEF\xBB\xBFYQ== 0\n", {"line 1", "not base64"}); }
TEST(TiktokenListC, MegabyteLine) { expect_bad(std::string(1 << 20, 'A') + " 0\n", {"too long"}); }
TEST(TiktokenListC, GitLfsPointer) {
  expect_bad("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", {"Git LFS"});
}
TEST(TiktokenListC, RanksThatDoNotBeginAtZero) { expect_bad("YQ== 5\n", {"begin at 5"}); }
TEST(TiktokenListC, ExtraVocabularyThatBeginsElsewhere) {
  const TempFolder folder;
  folder.write("qwen.tiktoken", vocabulary());
  const auto extra = folder.write("more.extra", "YWI= 300\n");
  test::expect_error(
      [&] { load_tokenizer(folder.path() / "qwen.tiktoken", {.extra_vocab = extra}); },
      Kind::BadInput, {"begins at the id 300", "expected 464"});
}
TEST(TiktokenListC, OptionsOfTheFirstReleaseAreRefusedByOtherTokenizers) {
  const fs::path gguf = test::source("tests/fixtures/tokenizers/gguf/pre-qwen2.gguf");
  const fs::path json = test::source("tests/fixtures/tokenizers/json/bl-cl100k");
  for (const fs::path& path : {gguf, json}) {
    load_tokenizer(path);
    test::expect_error([&] { load_tokenizer(path, {.first_release = true}); }, Kind::Misused,
                       {"--first-release"});
    test::expect_error([&] { load_tokenizer(path, {.extra_vocab = "more.tiktoken"}); },
                       Kind::Misused, {"--extra-vocab"});
  }
}
TEST(TiktokenListC, MissingTokenizerSaysWhatWasLookedFor) {
  const TempFolder folder;
  test::expect_error([&] { load_tokenizer(folder.path()); }, Kind::BadInput,
                     {"has no tokenizer", "tokenizer.json", "tokenizer.model"});
}
TEST(SentencePieceListC, NoModel) {
  expect_bad("hello", {"not a SentencePiece model"}, "tokenizer.model");
}

// A small tokenizer.json: all bytes, and "ab".
nlohmann::json tokenizer_json() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  tokens.emplace_back("ab");
  const TokenizerSpec spec =
      spec_of_byte_vocabulary(tokens, {{'a', 'b', 256}}, {{.id = 257, .content = "<|end|>"}});
  return nlohmann::json::parse(to_tokenizer_json(spec));
}

void expect_bad_json(const std::function<void(nlohmann::json&)>& change,
                     const std::vector<std::string>& parts) {
  nlohmann::json json = tokenizer_json();
  change(json);
  expect_bad(json.dump(), parts, "tokenizer.json");
}

TEST(TokenizerJsonListC, AGoodOneLoads) {
  const TempFolder folder;
  folder.write("tokenizer.json", tokenizer_json().dump());
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->encode("ab<|end|>", SpecialPolicy::all()), (std::vector<TokenId>{256, 257}));
}
TEST(TokenizerJsonListC, IdFarPastTheVocabulary) {
  expect_bad_json([](auto& j) { j["added_tokens"][0]["id"] = 900'000; }, {"900000"});
}
TEST(TokenizerJsonListC, IdOf31Bits) {
  expect_bad_json([](auto& j) { j["model"]["vocab"]["ab"] = 2147483648; },
                  {"vocab.ab is 2147483648"});
}
TEST(TokenizerJsonListC, TwoTokensOfOneId) {
  expect_bad_json([](auto& j) { j["model"]["vocab"]["ab"] = 3; }, {"the id 3 to two tokens"});
}
TEST(TokenizerJsonListC, EmptyAddedToken) {
  expect_bad_json([](auto& j) { j["added_tokens"][0]["content"] = ""; }, {"empty content"});
}
TEST(TokenizerJsonListC, AddedTokenTwice) {
  expect_bad_json([](auto& j) { j["added_tokens"].push_back(j["added_tokens"][0]); }, {"repeats"});
}
// An expression that tries every way to part a run ends all the same, with one line or an answer.
TEST(TokenizerJsonListC, NestedQuantifierRegex) {
  for (const char* pattern : {"(a+)+$", "(a|a)*$", "(?:a?){40}a{40}", "(\\p{L}+)*\\d", "(.*)*x"}) {
    nlohmann::json json = tokenizer_json();
    json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern;
    const TempFolder folder;
    folder.write("tokenizer.json", json.dump());
    const auto tokenizer = load_tokenizer(folder.path());
    const auto start = std::chrono::steady_clock::now();
    try {
      tokenizer->encode(std::string(3000, 'a') + "!");
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Kind::BadInput);
      EXPECT_NE(error.line().find("takes too many steps"), std::string::npos) << error.line();
    }
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30)) << pattern;
  }
}
TEST(TokenizerJsonListC, RegexThatIsNone) {
  for (const char* pattern :
       {"(a", "a)", "[a", "a\\", "\\p{Nonsense}", "(*VERB)", "(?<=a+)b", "[z-a]", "\\y"}) {
    expect_bad_json(
        [&](auto& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern; },
        {"the expression", "is not understood"});
  }
}
TEST(TokenizerJsonListC, RegexOverFourKilobytes) {
  expect_bad_json(
      [](auto& j) {
        j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = std::string(5000, 'a');
      },
      {"5000 bytes"});
}
TEST(TokenizerJsonListC, EmptyReplacePattern) {
  expect_bad_json([](auto& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = ""; },
                  {"0 bytes"});
}
TEST(TokenizerJsonListC, ReplaceWithAnEmptyPattern) {
  expect_bad_json(
      [](auto& j) {
        j["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", ""}}}, {"content", "x"}};
      },
      {"normalizer"});
}
// Of added tokens that begin alike the longest that fits is taken.
TEST(TokenizerJsonListC, OverlappingAddedTokens) {
  nlohmann::json json = tokenizer_json();
  for (const auto& [id, content] : {std::pair{258, "<|end|>x"}, std::pair{259, "d|>xy"}}) {
    nlohmann::json token = json["added_tokens"][0];
    token["id"] = id;
    token["content"] = content;
    json["added_tokens"].push_back(token);
  }
  const TempFolder folder;
  folder.write("tokenizer.json", json.dump());
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->encode("<|end|>xy", SpecialPolicy::all()), (std::vector<TokenId>{258, 'y'}));
  EXPECT_EQ(tokenizer->encode("<|end|>y", SpecialPolicy::all()), (std::vector<TokenId>{257, 'y'}));
}
TEST(TokenizerJsonListC, UnknownComponents) {
  const auto refused = [](const std::function<void(nlohmann::json&)>& change,
                          const std::vector<std::string>& parts) {
    nlohmann::json json = tokenizer_json();
    change(json);
    const TempFolder folder;
    folder.write("tokenizer.json", json.dump());
    test::expect_error([&] { load_tokenizer(folder.path()); }, Kind::Unsupported, parts);
  };
  refused([](auto& j) { j["normalizer"]["type"] = "Upper"; }, {"normalizer.type is 'Upper'"});
  refused([](auto& j) { j["pre_tokenizer"]["pretokenizers"][1]["type"] = "Words"; },
          {"pre_tokenizer.pretokenizers", "'Words'"});
  refused([](auto& j) { j["decoder"]["type"] = "Upper"; }, {"decoder.type is 'Upper'"});
  refused([](auto& j) { j["post_processor"]["type"] = "Pair"; }, {"post_processor.type is 'Pair'"});
  refused([](auto& j) { j["model"]["type"] = "Neural"; }, {"'Neural'"});
  refused([](auto& j) { j["model"]["dropout"] = 0.1; }, {"dropout is set"});
}
TEST(TokenizerJsonListC, IdsAroundATextThatHaveNoToken) {
  expect_bad_json(
      [](auto& j) {
        j["post_processor"] = {{"type", "BertProcessing"}, {"cls", {"a", 5000}}, {"sep", {"b", 1}}};
      },
      {"puts the id 5000 around a text"});
}
TEST(TokenizerJsonListC, CharsmapThatIsDamaged) {
  for (const char* map : {"AAAA", "/////w==", "BAAAAA=="}) {
    expect_bad_json(
        [&](auto& j) {
          j["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", map}};
        },
        {"charsmap is damaged"});
  }
}
TEST(TokenizerJsonListC, MergeOfUnknownPieces) {
  expect_bad_json([](auto& j) { j["model"]["merges"][0] = {"ab", "c"}; }, {"'ab' and 'c'"});
  expect_bad_json([](auto& j) { j["model"]["merges"][0] = "abc"; }, {"merge 'abc'"});
}
TEST(TokenizerJsonListC, Depth) {
  expect_bad(std::string(10'000, '[') + std::string(10'000, ']'), {"nested deeper"},
             "tokenizer.json");
}
// A token that the alphabet can't write is never made of text, and shown as it stands.
TEST(TokenizerJsonListC, NotInTheByteAlphabet) {
  nlohmann::json json = tokenizer_json();
  json["model"]["vocab"]["字"] = 300;
  const TempFolder folder;
  folder.write("tokenizer.json", json.dump());
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->encode("字").size(), 3u);
  EXPECT_EQ(tokenizer->decode(std::vector<TokenId>{300}), "字");
}

// Any vocabulary will do for hostile text: bytes and a few merges of what the texts hold.
class HostileText : public testing::Test {
 protected:
  void SetUp() override {
    const TempFolder folder;
    std::string more;
    int rank = 256;
    for (std::string token :
         {"aa", "aaaa", "aaaaaaaa", "^^", "^^^^", "  ", "    ", "\n\n", "中", "中中"}) {
      more += base64(token) + " " + std::to_string(rank++) + "\n";
    }
    folder.write("v.tiktoken", vocabulary(more));
    const fs::path real = test::shared("fixtures/tokenizer/qwen.tiktoken");
    tokenizer_ = load_tokenizer(fs::exists(real) ? real : folder.path());
  }
  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_F(HostileText, AMillionOfOneCharacter) {
  const char* characters[] = {"a",      "^",      " ", "\n", "7", "中", "👨‍👩‍👧",
                              "\u0301", "\u0E31", "\t"};
  for (const std::string character : characters) {
    std::string text;
    while (text.size() < 1'000'000) text += character;
    std::vector<TokenId> ids;
    tokenizer_->encode(text, ids);
    EXPECT_EQ(tokenizer_->decode_bytes(ids), text) << printable(character);
  }
}

TEST_F(HostileText, AMillionRandomLetters) {
  Rng rng(1);
  std::string text;
  for (int i = 0; i < 1'000'000; ++i) text += static_cast<char>('a' + rng.below(26));
  std::vector<TokenId> ids;
  tokenizer_->encode(text, ids);
  EXPECT_EQ(tokenizer_->decode_bytes(ids), text);
}

TEST_F(HostileText, EveryCodePointAloneComesBack) {
  std::vector<TokenId> ids;
  for (char32_t point = 0; point < 0x110000; ++point) {
    if (point >= 0xD800 && point < 0xE000) continue;
    std::string text, storage;
    utf8::append(text, point);
    ids.clear();
    tokenizer_->encode(text, ids);
    ASSERT_EQ(tokenizer_->decode_bytes(ids), unicode::to_nfc(text, storage))
        << static_cast<uint32_t>(point);
  }
}

// Valid text comes back normalized, other bytes with replacement characters.
TEST_F(HostileText, RandomTextComesBack) {
  Rng rng(2);
  std::vector<TokenId> ids;
  for (int round = 0; round < 20'000; ++round) {
    std::string text, valid_storage, storage;
    for (uint64_t n = rng.below(30); n > 0; --n) {
      switch (rng.below(4)) {
        case 0:
          text += static_cast<char>(rng.below(256));
          break;
        case 1:
          text += static_cast<char>(' ' + rng.below(95));
          break;
        case 2:
          utf8::append(text, static_cast<char32_t>(0x300 + rng.below(0x2000)));
          break;
        default: {
          const auto point = static_cast<char32_t>(rng.below(0x110000));
          if (point < 0xD800 || point >= 0xE000) utf8::append(text, point);
        }
      }
    }
    ids.clear();
    tokenizer_->encode(text, ids);
    const std::string expected(
        unicode::to_nfc(unicode::to_valid_utf8(text, valid_storage), storage));
    ASSERT_EQ(tokenizer_->decode_bytes(ids), expected) << printable(text);
  }
}

}  // namespace
}  // namespace quern
