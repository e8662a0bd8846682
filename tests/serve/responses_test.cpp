// /v1/responses over real sockets: one message, whole or as typed events.
#include "serve/test_server.h"

namespace quern::test {
namespace {

class ResponsesApi : public testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = new TestServer(); }
  static void TearDownTestSuite() {
    delete server_;
    server_ = nullptr;
  }
  static TestServer& server() { return *server_; }

  static json respond(const json& body) {
    const Answer answer = server().post("/v1/responses", body);
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.parsed();
  }
  static std::string text_of(const json& response) {
    return response["output"][0]["content"][0]["text"];
  }
  static json error_of(const json& body) {
    const Answer answer = server().post("/v1/responses", body);
    EXPECT_EQ(answer.status, 400) << body << answer.body;
    return answer.parsed()["error"];
  }

  static TestServer* server_;
};
TestServer* ResponsesApi::server_ = nullptr;

TEST_F(ResponsesApi, TheTextIsThatOfTheSameConversationInChat) {
  for (int seed = 0; seed < 4; ++seed) {
    const json response = respond({{"input", "hello"},
                                   {"instructions", "You answer in verse."},
                                   {"max_output_tokens", 24},
                                   {"seed", seed}});
    const json chat = server()
                          .post("/v1/chat/completions",
                                {{"messages",
                                  {{{"role", "system"}, {"content", "You answer in verse."}},
                                   {{"role", "user"}, {"content", "hello"}}}},
                                 {"max_tokens", 24},
                                 {"seed", seed}})
                          .parsed();
    EXPECT_EQ(text_of(response), chat["choices"][0]["message"]["content"]);
    const bool whole = chat["choices"][0]["finish_reason"] == "stop";
    EXPECT_EQ(response["status"], whole ? "completed" : "incomplete");
    EXPECT_EQ(response["usage"]["input_tokens"], chat["usage"]["prompt_tokens"]);
    EXPECT_EQ(response["usage"]["output_tokens"], chat["usage"]["completion_tokens"]);
    EXPECT_EQ(response["usage"]["total_tokens"], chat["usage"]["total_tokens"]);
  }
}

TEST_F(ResponsesApi, AnAnswerCutByItsLengthSaysSo) {
  const json response = respond({{"input", "hello"}, {"max_output_tokens", 3}, {"seed", 1}});
  EXPECT_EQ(response["object"], "response");
  EXPECT_EQ(response["status"], "incomplete");
  EXPECT_EQ(response["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(response["output"][0]["status"], "incomplete");
  EXPECT_EQ(response["usage"]["output_tokens"], 3);
  EXPECT_EQ(response["max_output_tokens"], 3);
  EXPECT_TRUE(response["error"].is_null());
}

TEST_F(ResponsesApi, MessagesAndPartsAreTheSameAsTheirText) {
  const json base = {{"max_output_tokens", 12}, {"seed", 4}};
  json text = base, list = base, parts = base, developer = base, instructed = base;
  text["input"] = "hello";
  list["input"] = user("hello");
  parts["input"] = {
      {{"type", "message"},
       {"role", "user"},
       {"content",
        {{{"type", "input_text"}, {"text", "hel"}}, {{"type", "input_text"}, {"text", "lo"}}}}}};
  const std::string expected = text_of(respond(text));
  EXPECT_EQ(text_of(respond(list)), expected);
  EXPECT_EQ(text_of(respond(parts)), expected);
  instructed["input"] = "hello";
  instructed["instructions"] = "Be brief.";
  developer["input"] = {{{"role", "developer"}, {"content", "Be brief."}},
                        {{"role", "user"}, {"content", "hello"}}};
  EXPECT_EQ(text_of(respond(developer)), text_of(respond(instructed)));
}

TEST_F(ResponsesApi, EventsHaveTheirOrderAndNumbersAndMakeUpTheWholeAnswer) {
  for (int seed = 0; seed < 4; ++seed) {
    json body = {{"input", "hello"}, {"max_output_tokens", 30}, {"seed", seed}};
    const json whole = respond(body);
    body["stream"] = true;
    const Answer answer = server().post("/v1/responses", body);
    ASSERT_EQ(answer.status, 200) << answer.body;
    std::vector<std::string> types;
    std::string deltas;
    json last;
    int number = 0;
    for (const std::string& text : answer.events()) {
      const json event = json::parse(text);
      EXPECT_EQ(event["sequence_number"], number++);
      types.push_back(event["type"]);
      // Each event's name stands before its data.
      EXPECT_NE(answer.body.find("event: " + types.back() + "\ndata: " + text), std::string::npos);
      if (types.back() == "response.output_text.delta") deltas += event["delta"];
      if (types.back() == "response.output_text.done") {
        EXPECT_EQ(event["text"], deltas);
      }
      last = event;
    }
    std::vector<std::string> expected = {"response.created", "response.in_progress",
                                         "response.output_item.added",
                                         "response.content_part.added"};
    ASSERT_GE(types.size(), 8u);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), types.begin()));
    expected = {"response.output_text.done", "response.content_part.done",
                "response.output_item.done", "response." + whole["status"].get<std::string>()};
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), types.end() - 4));
    for (size_t i = 4; i + 4 < types.size(); ++i) {
      EXPECT_EQ(types[i], "response.output_text.delta");
    }
    EXPECT_EQ(deltas, text_of(whole));
    EXPECT_EQ(text_of(last["response"]), deltas);
    EXPECT_EQ(last["response"]["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
  }
}

TEST_F(ResponsesApi, CountsWhatItTookFromTheCache) {
  const std::string prompt(200, 'r');
  respond({{"input", prompt}, {"max_output_tokens", 1}});
  const json again = respond({{"input", prompt}, {"max_output_tokens", 1}});
  EXPECT_GT(again["usage"]["input_tokens_details"]["cached_tokens"], 100);
}

TEST_F(ResponsesApi, AFormatKeepsTheTextToASchema) {
  const json format = {
      {"type", "json_schema"},
      {"name", "answer"},
      {"strict", true},
      {"schema",
       {{"type", "object"},
        {"properties", {{"size", {{"enum", {"small", "large"}}}}, {"sure", {{"type", "boolean"}}}}},
        {"required", {"size", "sure"}},
        {"additionalProperties", false}}}};
  for (int seed = 0; seed < 5; ++seed) {
    const json response =
        respond({{"input", "which?"}, {"text", {{"format", format}}}, {"seed", seed}});
    ASSERT_EQ(response["status"], "completed");
    const json value = json::parse(text_of(response));
    EXPECT_TRUE(value["size"] == "small" || value["size"] == "large");
    EXPECT_TRUE(value["sure"].is_boolean());
  }
  const json object = respond(
      {{"input", "which?"}, {"text", {{"format", {{"type", "json_object"}}}}}, {"seed", 1}});
  if (object["status"] == "completed") {
    EXPECT_TRUE(json::parse(text_of(object)).is_object());
  }
}

TEST_F(ResponsesApi, WhatIsNotKnownIsRefusedByName) {
  const std::pair<json, std::string> cases[] = {
      {{{"input", "x"}, {"tools", {{{"type", "web_search"}}}}}, "tools[0].type"},
      {{{"input", "x"}, {"tool_choice", "required"}}, "tool_choice"},
      {{{"input", "x"}, {"truncation", "auto"}}, "truncation"},
      {{{"input", "x"}, {"previous_response_id", "resp_1"}}, "previous_response_id"},
      {{{"input", "x"}, {"store", true}}, "store"},
      {{{"input", "x"}, {"background", true}}, "background"},
      {{{"input", "x"}, {"reasoning", {{"effort", "huge"}}}}, "reasoning.effort"},
      {{{"input", "x"}, {"max_tokens", 3}}, "max_tokens"},
      {{{"input", "x"}, {"n", 2}}, "n"},
      {{{"input", "x"}, {"stop", "a"}}, "stop"},
      {{{"input", "x"}, {"text", {{"frob", "low"}}}}, "text.frob"},
      {{{"input", "x"}, {"text", {{"format", {{"type", "xml"}}}}}}, "text.format"},
      {{{"input", "x"}, {"text", {{"format", {{"type", "json_schema"}, {"name", "a"}}}}}},
       "text.format"},
      {{{"input", "x"}, {"max_output_tokens", 0}}, "max_output_tokens"},
      {{{"input", "x"}, {"temperature", -1}}, "temperature"},
      {{{"input", "x"}, {"stream", 1}}, "stream"},
      {{{"input", "x"}, {"instructions", 1}}, "instructions"},
      {{{"input", 1}}, "input"},
      {{{"input", json::array()}}, "input"},
      {{{"max_output_tokens", 1}}, "input"},
      {{{"input", {{{"type", "function_call_output"}, {"output", "x"}}}}}, "input[0]"},
      {{{"input", {{{"role", "tool"}, {"content", "x"}}}}}, "input"},
      {{{"input", {{{"type", "item_reference"}, {"id", "x"}}}}}, "input[0].type"},
      {{{"input", {{{"role", "user"}, {"content", {{{"type", "input_image"}, {"text", "x"}}}}}}}},
       "input[0].content[0].type"},
  };
  for (const auto& [body, name] : cases) EXPECT_EQ(error_of(body)["param"], name) << body;
  // false is what it is.
  EXPECT_EQ(respond({{"input", "x"}, {"store", false}, {"max_output_tokens", 1}})["store"], false);
}

}  // namespace
}  // namespace quern::test
