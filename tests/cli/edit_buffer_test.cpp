#include "cli/terminal/edit_buffer.h"

#include <gtest/gtest.h>

namespace quern::cli {
namespace {

EditBuffer with(std::string text, size_t left_of_end = 0) {
  EditBuffer buffer;
  buffer.set(std::move(text));
  for (size_t i = 0; i < left_of_end; ++i) buffer.left();
  return buffer;
}

TEST(DisplayWidth, CountsWideCharactersTwiceAndCombiningMarksNotAtAll) {
  EXPECT_EQ(display_width("abc"), 3);
  EXPECT_EQ(display_width("你好"), 4);
  EXPECT_EQ(display_width("한글"), 4);
  EXPECT_EQ(display_width("e\u0301"), 1);
  EXPECT_EQ(display_width(""), 0);
}

TEST(EditBuffer, MovesAndErasesWholeCharacters) {
  EditBuffer buffer = with("a你é");
  buffer.left();
  EXPECT_EQ(buffer.cursor(), 4u);  // before the two bytes of é
  buffer.left();
  EXPECT_EQ(buffer.cursor(), 1u);  // before the three bytes of 你
  buffer.erase_right();
  EXPECT_EQ(buffer.text(), "aé");
  buffer.erase_left();
  EXPECT_EQ(buffer.text(), "é");
  EXPECT_EQ(buffer.cursor(), 0u);
}

TEST(EditBuffer, StaysWhereItIsAtBothEnds) {
  EditBuffer buffer = with("");
  buffer.left();
  buffer.right();
  buffer.erase_left();
  buffer.erase_right();
  buffer.word_left();
  buffer.word_right();
  EXPECT_FALSE(buffer.up());
  EXPECT_FALSE(buffer.down());
  EXPECT_EQ(buffer.cursor(), 0u);
}

TEST(EditBuffer, InsertsAtTheCursor) {
  EditBuffer buffer = with("ad", 1);
  buffer.insert("bc");
  EXPECT_EQ(buffer.text(), "abcd");
  EXPECT_EQ(buffer.cursor(), 3u);
}

TEST(EditBuffer, MovesByWordsAcrossLines) {
  EditBuffer buffer = with("one two\nthree");
  buffer.word_left();
  EXPECT_EQ(buffer.cursor(), 8u);
  buffer.word_left();
  EXPECT_EQ(buffer.cursor(), 4u);
  buffer.word_right();
  EXPECT_EQ(buffer.cursor(), 7u);
  buffer.word_right();
  EXPECT_EQ(buffer.cursor(), 13u);
}

TEST(EditBuffer, HomeAndEndStayInTheLine) {
  EditBuffer buffer = with("one\ntwo\nthree", 7);  // in "two"
  buffer.home();
  EXPECT_EQ(buffer.cursor(), 4u);
  buffer.end();
  EXPECT_EQ(buffer.cursor(), 7u);
}

TEST(EditBuffer, UpAndDownKeepTheColumnOnTheScreen) {
  EditBuffer buffer = with("你好x\nabcdef\nz", 3);  // before "f"
  ASSERT_TRUE(buffer.up());
  EXPECT_EQ(buffer.cursor(), 7u);  // columns 0-1 你, 2-3 好, 4 x: the end of the line
  ASSERT_TRUE(buffer.down());
  EXPECT_EQ(buffer.cursor(), 13u);
  ASSERT_TRUE(buffer.down());
  EXPECT_EQ(buffer.cursor(), 16u);
  EXPECT_FALSE(buffer.down());
}

TEST(EditBuffer, AColumnInTheMiddleOfAWideCharacterIsBeforeIt) {
  EditBuffer buffer = with("你好\na");
  ASSERT_TRUE(buffer.up());
  EXPECT_EQ(buffer.cursor(), 0u);
}

TEST(EditBuffer, WhatWasKilledComesBackByYank) {
  EditBuffer buffer = with("one two");
  buffer.erase_word_left();
  EXPECT_EQ(buffer.text(), "one ");
  buffer.home();
  buffer.yank();
  EXPECT_EQ(buffer.text(), "twoone ");
  buffer.erase_to_end();
  EXPECT_EQ(buffer.text(), "two");
  buffer.erase_to_start();
  EXPECT_EQ(buffer.text(), "");
  buffer.yank();
  EXPECT_EQ(buffer.text(), "two");
  buffer.home();
  buffer.erase_word_right();
  EXPECT_EQ(buffer.text(), "");
}

TEST(EditBuffer, KillingAtALinesEndJoinsTheNext) {
  EditBuffer buffer = with("one\ntwo", 4);
  buffer.erase_to_end();
  EXPECT_EQ(buffer.text(), "onetwo");
}

}  // namespace
}  // namespace quern::cli
