// Checking a text at once against decoding it character by character, which is the definition.
#include <gtest/gtest.h>

#include "core/rng.h"
#include "core/utf8.h"

namespace quern {
namespace {

size_t first_invalid_by_definition(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const utf8::Point point = utf8::decode(text.substr(i));
    if (!point.valid) return i;
    i += point.length;
  }
  return std::string_view::npos;
}

void expect_same(const std::string& text) {
  ASSERT_EQ(utf8::first_invalid(text), first_invalid_by_definition(text)) << text;
}

// Every pair of bytes, and every three of those that matter, at the edges of blocks of 32.
TEST(Utf8, EverySequenceOfBytesIsJudgedByTheDefinition) {
  for (const size_t at : {0, 29, 31, 62}) {
    for (int first = 0x7F; first < 256; ++first) {
      for (int second = 0; second < 256; ++second) {
        std::string text(100, 'x');
        text[at] = static_cast<char>(first);
        text[at + 1] = static_cast<char>(second);
        ASSERT_NO_FATAL_FAILURE(expect_same(text));
        for (const int third : {0x7F, 0x80, 0xBF, 0xC2, 0xE0}) {
          text[at + 2] = static_cast<char>(third);
          ASSERT_NO_FATAL_FAILURE(expect_same(text));
          text[at + 3] = '\x80';
          ASSERT_NO_FATAL_FAILURE(expect_same(text));
          text[at + 4] = '\x80';
          ASSERT_NO_FATAL_FAILURE(expect_same(text));
          text[at + 3] = text[at + 4] = 'x';
        }
      }
    }
  }
}

TEST(Utf8, RandomTextsWithBrokenBytesAreJudgedByTheDefinition) {
  Rng rng(71);
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    while (text.size() < rng.below(300)) {
      const uint64_t kind = rng.below(4);
      const auto point = static_cast<char32_t>(rng.below(kind == 0   ? 0x80
                                                         : kind == 1 ? 0x800
                                                         : kind == 2 ? 0x10000
                                                                     : 0x110000));
      utf8::append(text, point);  // surrogates among them
    }
    for (uint64_t n = rng.below(3); n > 0 && !text.empty(); --n) {
      text[rng.below(text.size())] = static_cast<char>(rng.below(256));
    }
    if (rng.below(4) == 0 && !text.empty()) text.resize(rng.below(text.size()));
    ASSERT_NO_FATAL_FAILURE(expect_same(text));
  }
}

}  // namespace
}  // namespace quern
