// Text as other languages write and see it: Python, JSON, HTML.
#include <gtest/gtest.h>

#include "core/ascii.h"
#include "core/json_string.h"
#include "core/markup.h"
#include "core/python_text.h"

namespace quern {
namespace {

TEST(PythonText, DoesWhatPythonDoes) {
  using namespace python;
  EXPECT_EQ(strip("\x1c　 a b \xc2\x85\n"), "a b");
  EXPECT_EQ(rstrip("a\xff "), "a\xff");
  EXPECT_EQ(replace("aé", "", "-"), "-a-é-");
  EXPECT_EQ(replace("aaa", "aa", "b"), "ba");
  EXPECT_EQ(split(" a　b  c ").size(), 3u);
  EXPECT_EQ(split_at("a_b_", "_").size(), 3u);
  EXPECT_EQ(rstrip_all("好。。", "。"), "好");
  EXPECT_EQ(before("a\n\nb", "\n\n"), "a");
  EXPECT_EQ(length("né😀"), 3u);
  std::vector<std::string_view> lines;
  split_lines(
      "a\r\nb\x1c\xe2\x80\xa8"
      "c",
      LineEnds::Cut, lines);
  EXPECT_EQ(lines, (std::vector<std::string_view>{"a", "b", "", "c"}));
  split_lines("a\r\nb\xc2\x85", LineEnds::Keep, lines);
  EXPECT_EQ(lines, (std::vector<std::string_view>{"a\r\n", "b\xc2\x85"}));
  EXPECT_EQ(last_point("né"), U'é');
  EXPECT_EQ(last_point(""), U'\0');
}

TEST(JsonString, EscapesAsPythonDoes) {
  EXPECT_EQ(json_string("é \"\\/\""), R"("é \"\\/\"")");
  EXPECT_EQ(json_string({"\0\b\t\n\v\f\r\x1f\x7f", 9}),
            "\"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\x7f\"");
  EXPECT_EQ(json_string(""), "\"\"");
}

TEST(Markup, EntitiesStandForMarks) {
  EXPECT_EQ(escape_markup("<a href=\"x\">é & 'b'\n"), "&lt;a href=&quot;x&quot;&gt;é &amp; 'b'\n");
}

TEST(Ascii, OnlyAsciiIsLowered) { EXPECT_EQ(ascii_lower("AZ[@É"), "az[@É"); }

}  // namespace
}  // namespace quern
