// Pairs of answers in the forms that training files have.
#include "data/preferences.h"

#include <gtest/gtest.h>

#include <set>

#include "core/error.h"
#include "data/loader.h"
#include "support/byte_tokenizer.h"
#include "support/support.h"

namespace quern::test {
namespace {

Preference read(std::string_view json) {
  return read_preference(OrderedJson::parse(json, "r"), "r");
}

TEST(Preferences, OneReaderForAllForms) {
  for (
      const char* json :
      {R"({"prompt": "Hi?", "chosen": "Good.", "rejected": "Bad."})",
       R"({"prompt": [{"role": "user", "content": "Hi?"}],
            "chosen": [{"role": "assistant", "content": "Good."}],
            "rejected": [{"role": "assistant", "content": "Bad."}]})",
       R"({"chosen": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Good."}],
            "rejected": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Bad."}]})",
       R"({"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Good."}],
            "rejected": "Bad."})"}) {
    const Preference pair = read(json);
    ASSERT_EQ(pair.chosen.messages.size(), 2u) << json;
    ASSERT_EQ(pair.rejected.messages.size(), 2u) << json;
    EXPECT_EQ(pair.chosen.messages[0].text(), "Hi?");
    EXPECT_EQ(pair.rejected.messages[0].text(), "Hi?");
    EXPECT_EQ(pair.chosen.messages[1].text(), "Good.");
    EXPECT_EQ(pair.rejected.messages[1].text(), "Bad.");
  }
}

TEST(Preferences, WhatIsNoPairIsNamed) {
  for (const char* json : {R"([1])", R"({"prompt": "Hi?"})", R"({"chosen": "a", "rejected": "b"})",
                           R"({"prompt": "Hi?", "chosen": "Same.", "rejected": "Same."})",
                           R"({"prompt": "Hi?", "chosen": "", "rejected": "b"})",
                           R"({"prompt": 1, "chosen": "a", "rejected": "b"})",
                           R"({"messages": [], "rejected": "b"})"}) {
    try {
      read(json);
      FAIL() << json;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Kind::BadInput);
      EXPECT_TRUE(std::string_view(error.what()).starts_with("r")) << error.what();
    }
  }
}

TEST(Preferences, AreTwoDocumentsWhoseLastAnswersAreLearnt) {
  const TempFolder folder;
  folder.write("pairs.jsonl",
               "{\"prompt\": \"Hi?\", \"chosen\": \"Good.\", \"rejected\": \"Bad.\"}\n"
               "not json\n"
               "{\"prompt\": \"Two?\", \"chosen\": \"Go on.\", \"rejected\": \"Go off.\"}\n");
  const auto tokenizer = byte_tokenizer();
  const ChatMl format(*tokenizer);
  const fs::path set = folder.path() / "set";
  fs::create_directory(set);
  ThreadPool pool(1);
  const ChatPackReport report = pack_preferences(
      {folder.path() / "pairs.jsonl"}, *tokenizer,
      ChatLabeller(*tokenizer, format, ChatMask::Assistant), set, {.max_length = 128}, [] {});
  EXPECT_EQ(report.conversations, 2);
  EXPECT_EQ(report.bad, 1);
  const Dataset data(set, pool);
  ASSERT_EQ(data.documents().size(), 4u);
  // Pairs come together, and what both begin with ("Go o") is not learnt.
  Loader loader({{&data, 1}}, {128, 7, Packing::Pairs, true});
  std::set<std::string> seen;
  for (int pair = 0; pair < 2; ++pair) {
    std::string answers[2];
    for (std::string& answer : answers) {
      std::vector<int32_t> ids(128), labels(128), starts(128);
      loader.next(ids, labels, starts);
      std::vector<TokenId> learnt;
      for (const int32_t label : labels) {
        if (label >= 0) learnt.push_back(label);
      }
      answer = tokenizer->decode(learnt);
    }
    if (answers[0].starts_with("Good.")) {
      EXPECT_TRUE(answers[1].starts_with("Bad.")) << answers[1];
    } else {
      EXPECT_TRUE(answers[0].starts_with("n.")) << answers[0];
      EXPECT_TRUE(answers[1].starts_with("ff.")) << answers[1];
    }
    seen.insert(answers[0]);
  }
  EXPECT_EQ(seen.size(), 2u);
}

}  // namespace
}  // namespace quern::test
