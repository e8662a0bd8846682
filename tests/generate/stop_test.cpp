#include "generate/stop.h"

#include "support/support.h"

namespace quern {
namespace {

// All that is shown when `text` arrives one byte at a time.
std::string shown(const std::string& text, std::vector<std::string> stops,
                  bool* stopped = nullptr) {
  StopStrings stop(std::move(stops));
  std::string out;
  for (const char c : text) {
    out += stop.put(std::string(1, c));
    // Never more than the text, and never a prefix of a stop string that then completes.
    EXPECT_TRUE(text.starts_with(out)) << out;
  }
  out += stop.flush();
  if (stopped != nullptr) *stopped = stop.stopped();
  return out;
}

TEST(StopStrings, TextBeforeTheFirstIsShownAndNothingOfIt) {
  bool stopped = false;
  EXPECT_EQ(shown("Answer: 42\nObservation: x", {"Observation:"}, &stopped), "Answer: 42\n");
  EXPECT_TRUE(stopped);
  EXPECT_EQ(shown("no stop here Observ", {"Observation:"}, &stopped), "no stop here Observ");
  EXPECT_FALSE(stopped);
}

TEST(StopStrings, OverlappingCandidates) {
  EXPECT_EQ(shown("aab", {"ab"}), "a");
  EXPECT_EQ(shown("abababc", {"ababc"}), "ab");
  EXPECT_EQ(shown("xENDy", {"END", "NDy"}), "x");
  EXPECT_EQ(shown("xyz", {"yzz", "z"}), "xy");
}

TEST(StopStrings, SeveralCharactersAtOnce) {
  StopStrings stop({"</s>"});
  EXPECT_EQ(stop.put("one two </s> three"), "one two ");
  EXPECT_TRUE(stop.stopped());
  EXPECT_EQ(stop.put("more"), "");
}

TEST(StopStrings, CharactersOfSeveralBytes) { EXPECT_EQ(shown("你好。再见", {"。"}), "你好"); }

TEST(StopStrings, AnEmptyOneIsRefused) {
  test::expect_error([] { StopStrings({""}); }, Kind::Misused, {"empty"});
}

TEST(StopRules, SequencesForceTheEnd) {
  const StopRules rules = {.ids = {9}, .strings = {}, .sequences = {{1, 2, 3}, {}}};
  EXPECT_TRUE(rules.forces_end(std::vector<TokenId>{0, 1, 2, 3}));
  EXPECT_FALSE(rules.forces_end(std::vector<TokenId>{1, 2, 3, 4}));
  EXPECT_FALSE(rules.forces_end(std::vector<TokenId>{2, 3}));
  EXPECT_TRUE(rules.ends(9));
  EXPECT_FALSE(rules.ends(3));
}

}  // namespace
}  // namespace quern
