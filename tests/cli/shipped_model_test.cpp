// The model that ships with Quern, as somebody meets it who names none.
#include <gtest/gtest.h>

#include <algorithm>

#include "cli/program.h"
#include "core/json.h"
#include "support/support.h"

namespace quern::test {
namespace {

std::string model() { return source("models/quern-mini").string(); }

TEST(ShippedModel, IsWhole) {
  const Outcome outcome = quern({"verify", model()});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  uint64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(model())) bytes += entry.file_size();
  EXPECT_LT(bytes, 24'000'000u);
}

TEST(ShippedModel, ChatWithoutAModelAnswersInSentences) {
  const Outcome outcome = quern({"chat"}, {.input = "Tell me a story about a dog.\n"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto ends = std::count_if(outcome.out.begin(), outcome.out.end(),
                                  [](char c) { return c == '.' || c == '!' || c == '?'; });
  EXPECT_GE(ends, 2) << outcome.out;
  EXPECT_NE(outcome.out.find(" the "), std::string::npos) << outcome.out;
}

// A model that had learnt nothing would give each of its 8,192 tokens the same probability.
TEST(ShippedModel, ExpectsEnglishProse) {
  const TempFolder temp;
  const fs::path text = temp.write("text.txt",
                                   "Once upon a time there was a little girl who lived in a house "
                                   "near the forest. One day she went out to play with her dog, "
                                   "and her mother said that she must be home before it was dark.");
  const Outcome outcome = quern({"perplexity", model(), text.string(), "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Json report = Json::parse(outcome.out, "perplexity");
  EXPECT_LT(report.at("results").items()[0].at("perplexity").number(), 200) << outcome.out;
}

}  // namespace
}  // namespace quern::test
