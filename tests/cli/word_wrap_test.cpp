// Text in pieces at the right edge of a terminal.
#include "cli/terminal/word_wrap.h"

#include <gtest/gtest.h>

namespace quern::cli {
namespace {

// What a terminal shows of an output: ESC [ n D moves left, ESC [ K clears to the end of the line.
std::vector<std::string> shown(const std::string& output) {
  std::vector<std::string> rows(1);
  for (size_t i = 0; i < output.size(); ++i) {
    if (output[i] == '\n') {
      rows.emplace_back();
    } else if (output.compare(i, 2, "\x1b[") == 0) {
      size_t end = i + 2;
      while (output[end] >= '0' && output[end] <= '9') ++end;
      if (output[end] == 'D') {
        rows.back().resize(rows.back().size() - std::stoul(output.substr(i + 2, end - i - 2)));
      }
      i = end;
    } else {
      rows.back() += output[i];
    }
  }
  return rows;
}

TEST(WordWrap, WordsStayWholeHoweverTheTextIsCut) {
  const std::string text = "The quick brown fox jumps over the lazy dog.\nAnd then sleeps.";
  const std::vector<std::string> expected = {"The quick ", "brown fox ", "jumps over", "the lazy ",
                                             "dog.",       "And then ",  "sleeps."};
  for (size_t piece = 1; piece <= 7; ++piece) {
    WordWrap wrap(10);
    std::string out;
    for (size_t i = 0; i < text.size(); i += piece) out += wrap.put(text.substr(i, piece));
    EXPECT_EQ(shown(out), expected) << "pieces of " << piece;
  }
}

TEST(WordWrap, AWordLongerThanALineIsBrokenAndWideCharactersAnywhere) {
  WordWrap wrap(10);
  EXPECT_EQ(shown(wrap.put("abcdefghijklm")), (std::vector<std::string>{"abcdefghij", "klm"}));
  WordWrap wide(10);
  EXPECT_EQ(wide.put("你好世界再见"), "你好世界再\n见");
}

TEST(WordWrap, GoesThroughWhereThereIsNoTerminal) {
  WordWrap wrap(0);
  const std::string text(200, 'x');
  EXPECT_EQ(wrap.put(text), text);
}

}  // namespace
}  // namespace quern::cli
