// response_format over the socket: what comes back fits, or the request is refused.
#include <regex>

#include "serve/test_server.h"

namespace quern::test {
namespace {

class Format : public testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = new TestServer(); }
  static void TearDownTestSuite() {
    delete server_;
    server_ = nullptr;
  }
  static TestServer& server() { return *server_; }
  static Answer ask(const json& format, int seed, bool stream = false) {
    return server().post("/v1/chat/completions", {{"messages", user("x")},
                                                  {"max_tokens", 300},
                                                  {"seed", seed},
                                                  {"n", 4},
                                                  {"stream", stream},
                                                  {"response_format", format}});
  }
  // The texts of answers that came to their end.
  static std::vector<std::string> ended(const json& format, int seed) {
    const Answer answer = ask(format, seed);
    EXPECT_EQ(answer.status, 200) << answer.body;
    std::vector<std::string> out;
    const json body = answer.parsed();  // must outlive the loop over its part
    for (const json& choice : body["choices"]) {
      if (choice["finish_reason"] == "stop") out.push_back(choice["message"]["content"]);
    }
    return out;
  }
  static TestServer* server_;
};
TestServer* Format::server_ = nullptr;

json schema_format(const json& schema) {
  return {{"type", "json_schema"},
          {"json_schema", {{"name", "t"}, {"strict", true}, {"schema", schema}}}};
}

TEST_F(Format, AnswersAreWhatTheSchemaSays) {
  const json schema = json::parse(
      R"({"type":"object","properties":{"colour":{"enum":["red","blue"]},"count":{"type":"integer"},
          "name":{"type":"string","maxLength":5},"flags":{"type":"array","items":{"type":"boolean"},"maxItems":3}},
          "required":["colour","count","name","flags"],"additionalProperties":false})");
  for (int seed = 0; seed < 10; ++seed) {
    const auto texts = ended(schema_format(schema), seed);
    EXPECT_EQ(texts.size(), 4u);  // everything in it is bounded
    for (const std::string& text : texts) {
      const json value = json::parse(text, nullptr, false);
      ASSERT_TRUE(value.is_object()) << text;
      EXPECT_EQ(value.size(), 4u);
      EXPECT_TRUE(value["colour"] == "red" || value["colour"] == "blue") << text;
      EXPECT_TRUE(value["count"].is_number_integer()) << text;
      EXPECT_TRUE(value["name"].is_string()) << text;
      EXPECT_TRUE(value["flags"].is_array() && value["flags"].size() <= 3) << text;
    }
  }
}

// Members come in the order in which the request has them, not in the alphabet's.
TEST_F(Format, MembersKeepTheirOrder) {
  const Answer answer = server().post_text(
      "/v1/chat/completions",
      R"({"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema",
          "json_schema":{"name":"t","schema":{"type":"object","properties":{"z":{"const":1},"a":{"const":2}},
          "required":["a","z"]}}}})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const std::string text = answer.parsed()["choices"][0]["message"]["content"];
  EXPECT_LT(text.find("\"z\""), text.find("\"a\"")) << text;
}

TEST_F(Format, RegexesAndGrammarsHold) {
  for (int seed = 0; seed < 10; ++seed) {
    for (const std::string& text :
         ended({{"type", "regex"}, {"regex", "[a-f]{3}-(x|yy)-\\d{1,4}"}}, seed)) {
      EXPECT_TRUE(std::regex_match(text, std::regex("[a-f]{3}-(x|yy)-\\d{1,4}"))) << text;
    }
    const auto answers =
        ended({{"type", "grammar"}, {"grammar", "root ::= \"yes\" | \"no\""}}, seed);
    EXPECT_EQ(answers.size(), 4u);
    for (const std::string& text : answers) EXPECT_TRUE(text == "yes" || text == "no") << text;
  }
  for (const std::string& text : ended({{"type", "json_object"}}, 1)) {
    EXPECT_TRUE(json::parse(text, nullptr, false).is_object()) << text;
  }
}

TEST_F(Format, AStreamHasTheSameText) {
  const json format = {{"type", "regex"}, {"regex", "[a-z]{20}"}};
  const auto whole = ended(format, 3);
  std::vector<std::string> pieces(4);
  for (const std::string& event : ask(format, 3, true).events()) {
    if (event == "[DONE]") continue;
    const json piece = json::parse(event);
    for (const json& choice : piece["choices"]) {
      if (choice["delta"].contains("content")) {
        pieces[choice["index"].get<size_t>()] += choice["delta"]["content"].get<std::string>();
      }
    }
  }
  EXPECT_EQ(pieces, whole);
}

TEST_F(Format, WhatCannotBeKeptToIsRefused) {
  const char* formats[] = {
      R"({"type":"json_schema"})",
      R"({"type":"json_schema","json_schema":1})",
      R"({"type":"json_schema","json_schema":{"name":"x"}})",
      R"({"type":"json_schema","json_schema":{"schema":{"type":"string","pattern":"(?=a)b"}}})",
      R"({"type":"json_schema","json_schema":{"schema":{"$ref":"#"}}})",
      R"({"type":"json_schema","json_schema":{"schema":{"type":"array","minItems":1000000000}}})",
      R"({"type":"json_object","schema":{}})",
      R"({"type":"regex"})",
      R"({"type":"regex","regex":"(a"})",
      R"({"type":"regex","regex":1})",
      R"({"type":"grammar","grammar":"root ::= root"})",
      R"({"type":"grammar"})",
      R"({"type":"xml"})",
  };
  for (const char* format : formats) {
    const Answer answer = ask(json::parse(format), 1);
    EXPECT_EQ(answer.status, 400) << format << answer.body;
    EXPECT_EQ(answer.parsed()["error"]["param"].get<std::string>().substr(0, 15), "response_format")
        << answer.body;
  }
  // Nothing to end with.
  const Answer endless = server().post(
      "/v1/completions",
      {{"prompt", "x"}, {"ignore_eos", true}, {"response_format", {{"type", "json_object"}}}});
  EXPECT_EQ(endless.status, 400);
}

}  // namespace
}  // namespace quern::test
