// The splitter against a regex engine that runs the published pattern, and the block splitter
// against the splitter.
#include "text/splitter.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <atomic>
#include <bit>
#include <memory>
#include <thread>

#include "core/rng.h"
#include "core/utf8.h"
#include "support/support.h"
#include "text/block_splitter.h"
#include "text/byte_bpe_tokenizer.h"
#include "text/unicode.h"

namespace quern {
namespace {

using unicode::Class;

class Regex {
 public:
  explicit Regex(std::string_view pattern) {
    int error = 0;
    PCRE2_SIZE where = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                          PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error, &where, nullptr);
    EXPECT_NE(code_, nullptr) << "at " << where;
    pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE);
    match_ = pcre2_match_data_create(4, nullptr);
  }
  ~Regex() {
    pcre2_match_data_free(match_);
    pcre2_code_free(code_);
  }
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  // End of the match that begins at `begin`; npos where none does.
  size_t end(std::string_view text, size_t begin) const {
    const int found = pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                  begin, PCRE2_ANCHORED | PCRE2_NO_UTF_CHECK, match_, nullptr);
    return found < 0 ? std::string_view::npos : pcre2_get_ovector_pointer(match_)[1];
  }

 private:
  pcre2_code* code_;
  pcre2_match_data* match_;
};

std::string of_point(char32_t point) {
  std::string out;
  utf8::append(out, point);
  return out;
}

// Code points that both take for the same: the engine's Unicode is older, and U+180E is white
// space to it.
const std::vector<char32_t>& common_points() {
  static const std::vector<char32_t> points = [] {
    const Regex letter("\\p{L}"), number("\\p{N}"), white("\\s");
    std::vector<char32_t> out;
    for (char32_t point = 0; point < 0x110000; ++point) {
      if (point >= 0xD800 && point < 0xE000) continue;
      const std::string text = of_point(point);
      const auto is = [&](const Regex& kind) { return kind.end(text, 0) == text.size(); };
      const Class ours = unicode::class_of(point);
      if (is(letter) == (ours == Class::Letter) && is(number) == (ours == Class::Number) &&
          is(white) == (ours == Class::Space || ours == Class::LineBreak)) {
        out.push_back(point);
      }
    }
    return out;
  }();
  return points;
}

// Each rule, and one expression that says all of it.
struct Rule {
  SplitRule rule;
  std::string pattern;
};
const Rule kRules[] = {
    {SplitRule::Qwen2, std::string(kQwenPattern)},
    {SplitRule::Llama3, std::string(kLlama3Pattern)},
    {SplitRule::Gpt2, std::string(kGpt2Pattern)},
    {SplitRule::DigitsGpt2,
     "\\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?![^\\s\\p{N}])|\\s+"}};

void expect_cuts(const Regex& regex, SplitRule rule, std::string_view text) {
  const PieceEnd end = piece_end_of(rule);
  for (size_t begin = 0; begin < text.size();) {
    const size_t expected = regex.end(text, begin);
    ASSERT_EQ(end(text, begin), expected)
        << static_cast<int>(rule) << " " << printable(text) << " from " << begin;
    begin = expected;
  }
}

TEST(Splitter, NewerLettersAreAllThatSetTheEnginesApart) {
  // Unicode 15 and 16 added some 9,000 letters and numbers, most of them ideographs.
  const size_t all = 0x110000 - 0x800;
  EXPECT_GT(common_points().size(), all - 12'000);
}

TEST(Splitter, EveryCodePointAloneAndInContextIsCutAsThePatternSays) {
  for (const auto& [rule, pattern] : kRules) {
    const Regex regex(pattern);
    for (const char32_t point : common_points()) {
      const std::string c = of_point(point);
      ASSERT_NO_FATAL_FAILURE(expect_cuts(regex, rule, c));
      ASSERT_NO_FATAL_FAILURE(expect_cuts(regex, rule,
                                          c + "a" + c + " " + c + "1" + c + "'" + c + c + "s'" + c +
                                              "e\n" + c + "! " + c + "\r\n" + c + "  \n " + c +
                                              " !" + c + "'S" + c + "\u3000" + c + "é" + c));
    }
  }
}

// A million strings, of characters that matter to the pattern and of any others.
TEST(Splitter, AMillionRandomStringsAreCutAsThePatternSays) {
  std::vector<std::unique_ptr<Regex>> regexes;
  for (const Rule& rule : kRules) regexes.push_back(std::make_unique<Regex>(rule.pattern));
  const std::vector<char32_t>& points = common_points();
  constexpr std::string_view kAscii = "'' sStTrRvVeEmMlLdD 09\n\r\t  !.-_(aAzZ\x0B\x0C\x1C";
  const char32_t kOthers[] = {0x17F,  0x212A, 0x85,   0xA0,  0x1680, 0x2003, 0x2028,
                              0x3000, 0x200B, 0xFEFF, 0x301, 0xE31,  0xBD,   0x2160,
                              0x660,  0x4E2D, 0xE9,   0x416, 0xAC00, 0x1F600};
  Rng rng(21);
  std::string text;
  for (int round = 0; round < 1'000'000; ++round) {
    text.clear();
    for (uint64_t n = 1 + rng.below(16); n > 0; --n) {
      const uint64_t kind = rng.below(8);
      if (kind < 5) {
        text += kAscii[rng.below(kAscii.size())];
      } else if (kind < 7) {
        utf8::append(text, kOthers[rng.below(std::size(kOthers))]);
      } else {
        utf8::append(text, points[rng.below(points.size())]);
      }
    }
    const size_t i = static_cast<size_t>(round) % std::size(kRules);
    ASSERT_NO_FATAL_FAILURE(expect_cuts(*regexes[i], kRules[i].rule, text));
  }
}

// Text of which a share is of a few characters, with runs.
std::string random_text(Rng& rng, size_t bytes, bool ascii) {
  constexpr std::string_view kSome = " '\n\r\t.s1eLl";
  std::string out;
  while (out.size() < bytes) {
    const uint64_t kind = rng.below(ascii ? 10 : 12);
    if (kind < 4) {
      out.append(1 + rng.below(7), static_cast<char>('a' + rng.below(26)));
      out += ' ';
    } else if (kind < 8) {
      out.append(1 + rng.below(rng.below(9) == 0 ? 70 : 3), kSome[rng.below(kSome.size())]);
    } else if (kind < 10) {
      out += static_cast<char>(rng.below(128));
    } else if (kind == 10) {
      utf8::append(out, static_cast<char32_t>(0x4E00 + rng.below(0x500)));
    } else {
      utf8::append(out, static_cast<char32_t>(0x80 + rng.below(0x3000)));
    }
  }
  return out;
}

TEST(BlockSplitter, EveryVariantCutsWhereTheDefinitionDoes) {
  for (const auto& [rule, pattern] : kRules) {
    const PieceEnd piece_end = piece_end_of(rule);
    for (const BlockCutsVariant& variant : block_cuts_variants(rule)) {
      Rng rng(31);
      uint64_t expected_cuts = 0, found_cuts = 0;
      for (int round = 0; round < 100'000; ++round) {
        const bool ascii = round % 2 == 0;
        std::string text = random_text(rng, kSplitBlock + 1 + rng.below(40), ascii);
        if (round % 8 >= 6) text = random_text(rng, rng.below(kSplitBlock), ascii) + "中";
        // A text that ends in the block is followed by what no text holds.
        const std::string padded = text + std::string(kSplitBlock, '\xFF');
        const uint64_t cuts = variant.cuts(padded.data(), unicode::class_table());
        uint64_t expected = 0;
        for (size_t end = piece_end(text, 0); end < std::min(text.size(), kSplitBlock);
             end = piece_end(text, end)) {
          expected |= uint64_t{1} << end;
        }
        // Of what comes after the last cut nothing is said.
        const uint64_t told = cuts == 0 ? 0 : ~uint64_t{0} >> std::countl_zero(cuts);
        ASSERT_EQ(cuts, expected & told) << variant.name << " " << printable(text);
        expected_cuts += static_cast<uint64_t>(std::popcount(expected));
        found_cuts += static_cast<uint64_t>(std::popcount(cuts));
      }
      // It is of use only if it finds most of them.
      EXPECT_GT(found_cuts, expected_cuts * 7 / 10) << variant.name << static_cast<int>(rule);
    }
  }
}

// Every pair of ASCII characters, at every place of a block, between letters.
TEST(BlockSplitter, EveryPairOfCharactersAtTheEdgesOfABlock) {
  for (const auto& [rule, pattern] : kRules) {
    const PieceEnd piece_end = piece_end_of(rule);
    for (const BlockCutsVariant& variant : block_cuts_variants(rule)) {
      for (int first = 0; first < 128; ++first) {
        for (int second = 0; second < 128; ++second) {
          for (const size_t at : {0, 1, 30, 31, 32, 61, 62, 63}) {
            std::string text(kSplitBlock + 3, 'x');
            text[at] = static_cast<char>(first);
            text[at + 1] = static_cast<char>(second);
            const uint64_t cuts = variant.cuts(text.data(), unicode::class_table());
            uint64_t expected = 0;
            for (size_t end = piece_end(text, 0); end < kSplitBlock; end = piece_end(text, end)) {
              expected |= uint64_t{1} << end;
            }
            const uint64_t told = cuts == 0 ? 0 : ~uint64_t{0} >> std::countl_zero(cuts);
            ASSERT_EQ(cuts, expected & told) << variant.name << " " << printable(text);
          }
        }
      }
    }
  }
}

// A vocabulary in which letters, words and characters merge.
Bpe some_bpe(std::vector<std::string>& tokens) {
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (const char* token : {" a", "aa", "ab", "abc", "  ", "    ", "\n\n", "'s", "ss", "ee", "ll",
                            "\xE4\xB8", "中", "中中", "..", "....", " .", "eee", "11"}) {
    tokens.emplace_back(token);
  }
  return Bpe::from_ranks(tokens);
}

// Blocks, cache and merging together against the definitions of each.
TEST(ByteBpe, WholeTextsAreEncodedPieceByPieceByTheDefinitions) {
  RankedTokens ranks;
  const Bpe bpe = some_bpe(ranks.tokens);
  const auto tokenizer = ByteBpeTokenizer::from_ranks(ranks);
  Rng rng(41);
  for (int round = 0; round < 4000; ++round) {
    std::string storage;
    const std::string raw = random_text(rng, 1 + rng.below(2000), round % 3 == 0);
    const std::string text(unicode::to_nfc(raw, storage));
    std::vector<TokenId> expected, ids;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = piece_end(text, begin);
      bpe.encode_piece_reference(std::string_view(text).substr(begin, end - begin), expected);
      begin = end;
    }
    tokenizer->encode(raw, ids);
    ASSERT_EQ(ids, expected) << printable(raw);
  }
}

TEST(ByteBpe, ManyThreadsAtOnceGiveTheSameIds) {
  RankedTokens ranks;
  some_bpe(ranks.tokens);
  const auto tokenizer = ByteBpeTokenizer::from_ranks(ranks);
  Rng rng(42);
  std::vector<std::string> texts;
  std::vector<std::vector<TokenId>> expected;
  for (int i = 0; i < 200; ++i) {
    texts.push_back(random_text(rng, 3000, false));
    expected.push_back(tokenizer->encode(texts.back()));
  }
  std::atomic<int> different = 0;
  std::vector<std::thread> threads;
  for (size_t thread = 0; thread < 8; ++thread) {
    threads.emplace_back([&, thread] {
      for (size_t i = 0; i < texts.size(); ++i) {
        const size_t which = (i * 7 + thread * 13) % texts.size();
        if (tokenizer->encode(texts[which]) != expected[which]) ++different;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(different, 0);
}

}  // namespace
}  // namespace quern
