#include "text/reasoning.h"

#include <gtest/gtest.h>

namespace quern {
namespace {

// The whole in pieces of `size` bytes.
ReasoningSplitter::Pieces split(std::string_view text, size_t size, bool inside = false) {
  ReasoningSplitter splitter(inside);
  ReasoningSplitter::Pieces all;
  const auto add = [&](const ReasoningSplitter::Pieces& pieces) {
    all.reasoning += pieces.reasoning;
    all.content += pieces.content;
  };
  for (size_t at = 0; at < text.size(); at += size) add(splitter.put(text.substr(at, size)));
  add(splitter.flush());
  return all;
}

TEST(Reasoning, IsPartedFromTheAnswerHoweverItComes) {
  const struct {
    const char *text, *reasoning, *content;
    bool inside = false;
  } cases[] = {
      {"<think>\nIt is 4.\n</think>\n\nFour.", "It is 4.", "Four."},
      {"Four.", "", "Four."},
      {" <thin air> is thin", "", " <thin air> is thin"},
      {"  <think>a</think>b", "a", "b"},
      {"<think>\n\n</think>\n\nb", "", "b"},
      {"a <think>b</think>", "", "a <think>b</think>"},
      {"<think>a < b\n</thin\n\nc</think>d</think>", "a < b\n</thin\n\nc", "d</think>"},
      {"still thinking\n\nand on", "still thinking\n\nand on", "", true},
      {"so\n</think>\n\nyes", "so", "yes", true},
      {"<think>cut off </thi", "cut off </thi", ""},
      {"", "", ""},
      {"<thi", "", "<thi"},
  };
  for (const auto& row : cases) {
    for (const size_t size : {1, 2, 3, 5, 100}) {
      const auto pieces = split(row.text, size, row.inside);
      EXPECT_EQ(pieces.reasoning, row.reasoning) << row.text << " by " << size;
      EXPECT_EQ(pieces.content, row.content) << row.text << " by " << size;
    }
  }
}

TEST(Reasoning, APromptMayHaveOpenedIt) {
  EXPECT_TRUE(opens_reasoning("<|im_start|>assistant\n<think>\n"));
  EXPECT_FALSE(opens_reasoning("<|im_start|>assistant\n<think>\n\n</think>\n\n"));
  EXPECT_FALSE(opens_reasoning("<|im_start|>assistant\n"));
  EXPECT_FALSE(opens_reasoning(""));
}

}  // namespace
}  // namespace quern
