// What clients of other servers send: taken where it says nothing here, done where it does.
#include <cmath>

#include "serve/test_server.h"
#include "text/load.h"

namespace quern::test {
namespace {

class WideRequests : public testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = new TestServer(); }
  static void TearDownTestSuite() {
    delete server_;
    server_ = nullptr;
  }
  static TestServer& server() { return *server_; }
  static json ask(const std::string& path, const json& body, int status = 200) {
    const Answer answer = server().post(path, body);
    EXPECT_EQ(answer.status, status) << body << answer.body;
    return answer.parsed();
  }
  static json chat(json body) {
    if (!body.contains("messages")) body["messages"] = user("hello");
    if (!body.contains("max_tokens")) body["max_tokens"] = 12;
    return ask("/v1/chat/completions", body);
  }
  static std::string text_of(const json& chat) { return chat["choices"][0]["message"]["content"]; }
  static json text(json body) { return ask("/v1/completions", body); }
  static json prompt(const json& messages) {
    return ask("/apply-template", {{"messages", messages}})["prompt"];
  }

  static TestServer* server_;
};
TestServer* WideRequests::server_ = nullptr;

TEST_F(WideRequests, WhatMeansNothingHereIsTaken) {
  const std::string plain = text_of(chat({{"seed", 4}}));
  const json more[] = {
      {{"metadata", {{"a", "b"}}}},
      {{"service_tier", "auto"}},
      {{"prompt_cache_key", "k"}},
      {{"safety_identifier", "u"}},
      {{"store", false}},
      {{"modalities", {"text"}}},
      {{"verbosity", "low"}},
      {{"user", "u"}},
      {{"tools", json::array()}},
      {{"tool_choice", "none"}},
      {{"parallel_tool_calls", true}},
      {{"logprobs", false}, {"top_logprobs", 0}},
      {{"top_k", -1}},
      {{"min_tokens", 0}},
      {{"reasoning_effort", "low"}},
      {{"chat_template_kwargs", json::object()}},
      {{"messages",
        {{{"role", "user"},
          {"name", "ann"},
          {"content", "hello"},
          {"annotations", json::array()}}}}},
      {{"messages",
        {{{"role", "user"},
          {"content",
           {{{"type", "text"}, {"text", "hello"}, {"cache_control", {{"type", "ephemeral"}}}}}}}}}},
  };
  for (json body : more) {
    body["seed"] = 4;
    EXPECT_EQ(text_of(chat(body)), plain) << body;
  }
}

TEST_F(WideRequests, SeedsAreAllOfInt64) {
  for (const int64_t seed : {INT64_MIN, int64_t{-1}, int64_t{0}, INT64_MAX}) {
    const json one = chat({{"seed", seed}}), two = chat({{"seed", seed}});
    EXPECT_EQ(one["seed"], seed);
    EXPECT_EQ(text_of(one), text_of(two));
  }
  EXPECT_NE(text_of(chat({{"seed", -1}})), text_of(chat({{"seed", -2}})));
}

TEST_F(WideRequests, MinusOneTokensIsAsManyAsFit) {
  const json answer = text({{"prompt", "x"}, {"max_tokens", -1}, {"ignore_eos", true}});
  EXPECT_EQ(answer["usage"]["total_tokens"], 1024);
}

TEST_F(WideRequests, NothingEndsBeforeTheLeastTokens) {
  for (int seed = 0; seed < 6; ++seed) {
    const json answer = text({{"prompt", "x"},
                              {"seed", seed},
                              {"min_tokens", 30},
                              {"max_tokens", 40},
                              {"logit_bias", {{"258", 100}}}});
    // The end is what is likeliest by far, from there on.
    EXPECT_EQ(answer["usage"]["completion_tokens"], 31);
    EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
  }
}

TEST_F(WideRequests, SystemMessagesMayStandAnywhere) {
  const std::string all = prompt({{{"role", "system"}, {"content", "one"}},
                                  {{"role", "user"}, {"content", "hi"}},
                                  {{"role", "developer"}, {"content", "two"}},
                                  {{"role", "user"}, {"content", "ho"}}});
  EXPECT_NE(all.find("<|im_start|>system\ntwo<|im_end|>"), all.npos) << all;
  // This format must end with the user's: then they are joined.
  const std::string joined = prompt({{{"role", "system"}, {"content", "one"}},
                                     {{"role", "user"}, {"content", "hi"}},
                                     {{"role", "system"}, {"content", "two"}}});
  EXPECT_NE(joined.find("<|im_start|>system\none\n\ntwo<|im_end|>\n<|im_start|>user\nhi"),
            joined.npos)
      << joined;
}

TEST_F(WideRequests, AnAssistantsMessageAtTheEndIsGoneOnWith) {
  const json messages = {{{"role", "user"}, {"content", "hi"}},
                         {{"role", "assistant"}, {"content", "Once upon"}}};
  const std::string text = prompt(messages);
  EXPECT_TRUE(text.ends_with("<|im_start|>assistant\nOnce upon")) << text;
  // The same tokens as a prompt of completions.
  const json same = chat({{"messages", messages}, {"seed", 2}});
  const json ids = ask("/apply-template", {{"messages", messages}})["tokens"];
  const json raw = this->text(
      {{"prompt", ids}, {"seed", 2}, {"max_tokens", 12}, {"stop_token_ids", {256, 257, 258}}});
  EXPECT_EQ(text_of(same), raw["choices"][0]["text"]);
}

TEST_F(WideRequests, GuidedAnswersAreWhatTheySay) {
  const std::string choice = text_of(chat({{"guided_choice", {"red", "green"}}}));
  EXPECT_TRUE(choice == "red" || choice == "green") << choice;
  EXPECT_EQ(text_of(chat({{"guided_regex", "ab{3}"}})), "abbb");
  EXPECT_EQ(text_of(chat({{"guided_grammar", "root ::= \"xyz\""}})), "xyz");
  const json schema = {{"type", "integer"}, {"minimum", 7}, {"maximum", 7}};
  EXPECT_EQ(text_of(chat({{"guided_json", schema}})), "7");
  EXPECT_EQ(text_of(chat({{"guided_json", schema.dump()}})), "7");
}

TEST_F(WideRequests, EchoTakesTheWholeContext) {
  const json all = text(
      {{"prompt", std::string(1024, 'x')}, {"max_tokens", 0}, {"echo", true}, {"logprobs", 0}});
  EXPECT_EQ(all["choices"][0]["logprobs"]["tokens"].size(), 1024u);
  EXPECT_TRUE(all["choices"][0]["logprobs"]["token_logprobs"][0].is_null());
  EXPECT_LT(all["choices"][0]["logprobs"]["token_logprobs"][1023], 0);
  ask("/v1/completions", {{"prompt", std::string(1025, 'x')}, {"max_tokens", 0}, {"echo", true}},
      400);
}

TEST_F(WideRequests, TheChosenTokenIsAmongTheTop) {
  const json answer = text({{"prompt", "abc"},
                            {"max_tokens", 20},
                            {"temperature", 2},
                            {"seed", 1},
                            {"ignore_eos", true},
                            {"logprobs", 1},
                            {"echo", true}});
  const json& logprobs = answer["choices"][0]["logprobs"];
  for (size_t i = 1; i < logprobs["tokens"].size(); ++i) {
    const std::string name = logprobs["tokens"][i];
    ASSERT_TRUE(logprobs["top_logprobs"][i].contains(name)) << logprobs["top_logprobs"][i];
    EXPECT_EQ(logprobs["top_logprobs"][i][name], logprobs["token_logprobs"][i]);
  }
}

TEST_F(WideRequests, LogprobsFromAPositionOnAreTheSameNumbers) {
  std::string shots(700, 's');
  for (size_t i = 0; i < shots.size(); ++i) shots[i] = static_cast<char>('a' + i * i % 23);
  const json base = {{"max_tokens", 0}, {"echo", true}, {"logprobs", 1}};
  for (const char* choice : {" A", " B", " a longer one"}) {
    json whole = base, part = base;
    whole["prompt"] = part["prompt"] = shots + choice;
    part["prompt_logprobs_from"] = 700;
    const json all = text(whole)["choices"][0]["logprobs"];
    const json answer = text(part);
    const json from = answer["choices"][0]["logprobs"];
    ASSERT_EQ(from["tokens"], all["tokens"]);
    for (size_t i = 0; i < all["tokens"].size(); ++i) {
      if (i < 700) {
        EXPECT_TRUE(from["token_logprobs"][i].is_null());
      } else {
        EXPECT_EQ(from["token_logprobs"][i], all["token_logprobs"][i]) << i;
      }
    }
    EXPECT_GT(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 600) << choice;
  }
}

TEST_F(WideRequests, EveryEventOfAStreamMayHaveTheCounts) {
  const Answer answer =
      server().post("/v1/completions", {{"prompt", "x"},
                                        {"max_tokens", 3},
                                        {"ignore_eos", true},
                                        {"stream", true},
                                        {"stream_options", {{"continuous_usage_stats", true}}}});
  int64_t made = 0;
  for (const std::string& event : answer.events()) {
    if (event == "[DONE]") continue;
    const json usage = json::parse(event)["usage"];
    EXPECT_EQ(usage["prompt_tokens"], 1) << event;
    EXPECT_GE(usage["completion_tokens"], made) << event;
    made = usage["completion_tokens"];
  }
  EXPECT_EQ(made, 3);
}

TEST_F(WideRequests, EmbeddingsMayBeCut) {
  const json whole = ask("/v1/embeddings", {{"input", "some text"}})["data"][0]["embedding"];
  const json cut =
      ask("/v1/embeddings", {{"input", "some text"}, {"dimensions", 8}})["data"][0]["embedding"];
  ASSERT_EQ(cut.size(), 8u);
  double squares = 0;
  for (size_t i = 0; i < 8; ++i) squares += whole[i].get<double>() * whole[i].get<double>();
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_NEAR(cut[i].get<double>(), whole[i].get<double>() / std::sqrt(squares), 1e-5);
  }
}

TEST_F(WideRequests, TheServerTellsAboutItself) {
  const json props = server().get("/props").parsed();
  EXPECT_EQ(props["default_generation_settings"]["n_ctx"], 1024);
  EXPECT_EQ(props["total_slots"], server().get("/slots").parsed().size());
  const json timings =
      text({{"prompt", "hello"}, {"max_tokens", 5}, {"ignore_eos", true}})["timings"];
  EXPECT_EQ(timings["predicted_n"], 5);
  EXPECT_GT(timings["predicted_per_second"], 0);
  const json rerank = ask("/v1/rerank", {{"query", "x"}, {"documents", {"y"}}}, 400);
  EXPECT_EQ(rerank["error"]["param"], "model");
}

TEST(Lenient, WhatIsNotKnownIsNamedInAHeader) {
  serve::ServeOptions options = tiny_options();
  options.api.lenient = true;
  TestServer server(options);
  const json body = {{"messages", user("x")}, {"max_tokens", 2}, {"frob", 1}, {"nitz", 2}};
  const Answer answer = server.post("/v1/chat/completions", body);
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.headers.at("x-quern-ignored"), "frob, nitz");
  json streamed = body;
  streamed["stream"] = true;
  EXPECT_EQ(server.post("/v1/chat/completions", streamed).headers.at("x-quern-ignored"),
            "frob, nitz");
  // A wrong value stays an error.
  json wrong = body;
  wrong["top_p"] = 7;
  EXPECT_EQ(server.post("/v1/chat/completions", wrong).status, 400);
}

TEST(ServedModels, NamesMayHaveSlashesAndAllAreCheckedFirst) {
  serve::ServeOptions options = tiny_options();
  options.models[0].name = "org/model";
  TestServer server(options);
  EXPECT_EQ(server.get("/v1/models/org/model").parsed()["id"], "org/model");
  EXPECT_EQ(server.get("/v1/models/org%2Fmodel").parsed()["id"], "org/model");
  EXPECT_EQ(server.post("/v1/completions", {{"model", "org/model"}, {"prompt", "x"}}).status, 200);
  const TempFolder folder;
  serve::ServeOptions broken = tiny_options();
  broken.models.push_back({"second", folder.path() / "nothing", broken.models[0].options});
  EXPECT_THROW(serve::Server{broken}, Error);
}

// ---- Functions by ReAct, as the release's ChatML has no other way ----

TEST(Tools, AreOfferedByReActAndForcedCallsFit) {
  const fs::path shipped = source("models/quern-mini");
  serve::ServeOptions options = tiny_options();
  options.models[0].folder = shipped;
  TestServer server(options);
  const auto ask = [&](const std::string& path, const json& body) {
    const Answer answer = server.post(path, body);
    EXPECT_EQ(answer.status, 200) << body << answer.body;
    return answer.parsed();
  };
  const json tool = {
      {"type", "function"},
      {"function",
       {{"name", "weather"},
        {"description", "tells the weather"},
        {"parameters", {{"type", "object"}, {"properties", {{"city", {{"type", "string"}}}}}}}}}};
  const json first = ask("/apply-template", {{"messages", user("Oslo?")}, {"tools", {tool}}});
  const std::string text = first["prompt"];
  EXPECT_NE(text.find("Use the following format:"), text.npos) << text;
  EXPECT_NE(text.find("weather"), text.npos);
  EXPECT_TRUE(text.ends_with("Oslo?<|im_end|>\n<|im_start|>assistant\n")) << text;
  const json call = {{"id", "c1"},
                     {"type", "function"},
                     {"function", {{"name", "weather"}, {"arguments", R"({"city": "Oslo"})"}}}};
  const json back = {{{"role", "user"}, {"content", "Oslo?"}},
                     {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", {call}}},
                     {{"role", "tool"}, {"tool_call_id", "c1"}, {"content", "rain <|im_end|>"}}};
  const json second = ask("/apply-template", {{"messages", back}, {"tools", {tool}}});
  const std::string with_result = second["prompt"];
  EXPECT_TRUE(
      with_result.ends_with("Action: weather\nAction Input: {\"city\": \"Oslo\"}\n"
                            "Observation: rain <|im_end|>\nThought:"))
      << with_result;
  // What the result says is text.
  int controls = 0;
  const auto tokenizer = load_tokenizer(shipped);
  for (const json& id : second["tokens"]) controls += tokenizer->is_special(id.get<int>()) ? 1 : 0;
  EXPECT_EQ(controls, 2 + 2 + 1);
  const json answer = ask("/v1/chat/completions",
                          {{"messages", back}, {"tools", {tool}}, {"max_tokens", 20}, {"seed", 1}});
  EXPECT_TRUE(answer["choices"][0]["message"].contains("content"));
  // A forced call fits its schema, also where the thought has begun; streamed it is the same.
  json strict = tool;
  strict["function"]["parameters"] = {{"type", "object"},
                                      {"properties", {{"city", {{"enum", {"Oslo", "Rome"}}}}}},
                                      {"required", {"city"}},
                                      {"additionalProperties", false}};
  for (const json& messages : {user("x"), back}) {
    json body = {{"messages", messages},
                 {"tools", {strict}},
                 {"tool_choice", "required"},
                 {"max_tokens", 400},
                 {"seed", 3}};
    const json forced = ask("/v1/chat/completions", body)["choices"][0];
    ASSERT_EQ(forced["finish_reason"], "tool_calls") << forced;
    const json function = forced["message"]["tool_calls"][0]["function"];
    EXPECT_EQ(function["name"], "weather");
    const json city = json::parse(function["arguments"].get<std::string>())["city"];
    EXPECT_TRUE(city == "Oslo" || city == "Rome") << function;
    EXPECT_FALSE(forced.contains("tool_call_problems"));
    body["stream"] = true;
    std::string name, arguments, finish;
    for (const std::string& data : server.post("/v1/chat/completions", body).events()) {
      if (data == "[DONE]") continue;
      const json event = json::parse(data);
      const json& one = event["choices"][0];
      if (!one["finish_reason"].is_null()) finish = one["finish_reason"];
      if (!one["delta"].contains("tool_calls")) continue;
      const json& piece = one["delta"]["tool_calls"][0]["function"];
      name += piece.value("name", "");
      arguments += piece.value("arguments", "");
    }
    EXPECT_EQ(name, function["name"]);
    EXPECT_EQ(arguments, function["arguments"]);
    EXPECT_EQ(finish, "tool_calls");
  }
  // The same through the other APIs.
  json flat = strict["function"];
  flat["type"] = "function";
  const json response = ask("/v1/responses", {{"input", "x"},
                                              {"tools", {flat}},
                                              {"tool_choice", "required"},
                                              {"max_output_tokens", 400},
                                              {"seed", 3}});
  EXPECT_EQ(response["output"].back()["type"], "function_call") << response;
  const json message =
      ask("/v1/messages",
          {{"messages", user("x")},
           {"tools", {{{"name", "weather"}, {"input_schema", strict["function"]["parameters"]}}}},
           {"tool_choice", {{"type", "any"}}},
           {"max_tokens", 400},
           {"seed", 3}});
  EXPECT_EQ(message["stop_reason"], "tool_use") << message;
  EXPECT_TRUE(message["content"].back()["input"].contains("city")) << message;
}

// ---- Anthropic's form ----

TEST_F(WideRequests, MessagesOfAnthropicsFormAreThoseOfChat) {
  const json messages = {{{"role", "user"}, {"content", "hi"}},
                         {{"role", "assistant"}, {"content", {{{"type", "text"}, {"text", "ho"}}}}},
                         {{"role", "user"}, {"content", "and?"}}};
  const json body = {
      {"system", "Be brief."}, {"messages", messages}, {"max_tokens", 20}, {"seed", 3}};
  const json answer = ask("/v1/messages", body);
  EXPECT_EQ(answer["type"], "message");
  EXPECT_EQ(answer["role"], "assistant");
  json list = {{{"role", "system"}, {"content", "Be brief."}}};
  for (const json& message : messages) list.push_back(message);
  const json same = chat({{"messages", list}, {"max_tokens", 20}, {"seed", 3}});
  EXPECT_EQ(answer["content"][0]["text"], text_of(same));
  EXPECT_EQ(answer["stop_reason"],
            same["choices"][0]["finish_reason"] == "stop" ? "end_turn" : "max_tokens");
  EXPECT_EQ(answer["usage"]["output_tokens"], same["usage"]["completion_tokens"]);
  EXPECT_EQ(ask("/v1/messages/count_tokens",
                {{"system", "Be brief."}, {"messages", messages}})["input_tokens"],
            same["usage"]["prompt_tokens"]);
}

TEST_F(WideRequests, AnthropicsEventsMakeUpTheWholeAnswer) {
  json body = {{"messages", user("hello")}, {"max_tokens", 24}, {"seed", 5}};
  const json whole = ask("/v1/messages", body);
  body["stream"] = true;
  const Answer answer = server().post("/v1/messages", body);
  std::vector<std::string> types;
  std::string text;
  json last;
  for (const std::string& data : answer.events()) {
    const json event = json::parse(data);
    types.push_back(event["type"]);
    EXPECT_NE(answer.body.find("event: " + types.back() + "\ndata: " + data), std::string::npos);
    if (types.back() == "content_block_delta") text += event["delta"]["text"];
    if (types.back() == "message_delta") last = event;
  }
  ASSERT_GE(types.size(), 5u);
  EXPECT_EQ(types.front(), "message_start");
  EXPECT_EQ(types[1], "content_block_start");
  EXPECT_EQ(types[types.size() - 3], "content_block_stop");
  EXPECT_EQ(types.back(), "message_stop");
  EXPECT_EQ(text, whole["content"][0]["text"]);
  EXPECT_EQ(last["delta"]["stop_reason"], whole["stop_reason"]);
  EXPECT_EQ(last["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
}

TEST_F(WideRequests, AnthropicsErrorsHaveItsForm) {
  const std::pair<json, std::string> cases[] = {
      {{{"messages", user("x")}}, "max_tokens"},
      {{{"messages", user("x")}, {"max_tokens", 0}}, "max_tokens"},
      {{{"messages", user("x")}, {"max_tokens", 4}, {"frob", 1}}, "frob"},
      {{{"max_tokens", 4}}, "messages"},
      {{{"messages", {{{"role", "system"}, {"content", "x"}}}}, {"max_tokens", 4}}, "role"},
      {{{"messages", {{{"role", "user"}, {"content", {{{"type", "image"}}}}}}}, {"max_tokens", 4}},
       "image"},
      {{{"messages", user("x")}, {"max_tokens", 4}, {"tools", {{{"frob", "f"}}}}}, "tools"},
      {{{"messages", user("x")},
        {"max_tokens", 4},
        {"tools", {{{"name", "f"}}}},
        {"tool_choice", {{"type", "tool"}, {"name", "f"}, {"frob", 1}}}},
       "tool_choice.frob"},
      {{{"messages",
         {{{"role", "assistant"},
           {"content", {{{"type", "thinking"}, {"thinking", "hm"}, {"frob", 1}}}}}}},
        {"max_tokens", 4}},
       "messages[0].content[0].frob"},
      {{{"system", {{{"type", "text"}, {"text", "x"}, {"frob", 1}}}},
        {"messages", user("x")},
        {"max_tokens", 4}},
       "system[0].frob"},
  };
  for (const auto& [body, word] : cases) {
    const json error = ask("/v1/messages", body, 400);
    EXPECT_EQ(error["type"], "error");
    EXPECT_EQ(error["error"]["type"], "invalid_request_error");
    EXPECT_NE(error["error"]["message"].get<std::string>().find(word), std::string::npos) << error;
  }
}

}  // namespace
}  // namespace quern::test
