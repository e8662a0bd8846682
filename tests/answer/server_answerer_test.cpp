// Answers of servers that speak OpenAI's API each in their way. tests/serve/answerer_test.cpp asks
// ours.
#include <nlohmann/json.hpp>

#include "answer/answerer.h"
#include "support/scripted_server.h"
#include "support/support.h"

namespace quern::test {
namespace {

using nlohmann::json;

using Handler = std::function<void(const json& body, ServedConnection& connection)>;

// A server of one model, "m", whose completions and chat completions a test writes.
ScriptedServer::Handler api(Handler handler) {
  return
      [handler = std::move(handler)](const ServedRequest& request, ServedConnection& connection) {
        if (request.target == "/v1/models") {
          return connection.answer(200, R"({"data": [{"id": "m"}]})", "application/json");
        }
        handler(json::parse(request.body), connection);
      };
}

std::unique_ptr<Answerer> answerer_of(const ScriptedServer& server, bool stream = false) {
  ServerAnswererOptions options;
  options.client.url = server.url();
  options.connections = 2;
  options.stream = stream;
  return make_server_answerer(options);
}

CompleteRequest question(const std::string& text) {
  CompleteRequest request;
  request.messages = {{ChatRole::User, text}};
  return request;
}

json chat_answer(const std::string& text) {
  return {{"choices",
           {{{"message", {{"role", "assistant"}, {"content", text}}}, {"finish_reason", "stop"}}}},
          {"usage", {{"prompt_tokens", 7}, {"completion_tokens", 3}}}};
}

TEST(ServerAnswerer, AsksForWhatWasNamedAndNoMore) {
  ScriptedServer server(api([](const json& body, ServedConnection& connection) {
    connection.answer(200, chat_answer(body.dump()).dump(), "application/json");
  }));
  const auto answerer = answerer_of(server);
  EXPECT_EQ(answerer->name(), "m at " + server.url());
  CompleteRequest request = question("hi");
  quern::Answer answer = answerer->complete({&request, 1})[0];
  EXPECT_EQ(json::parse(answer.text),
            json::parse(R"({"model": "m", "messages": [{"role": "user", "content": "hi"}]})"));
  EXPECT_EQ(answer.finish, FinishReason::Stop);
  EXPECT_EQ(answer.prompt_tokens, 7);
  EXPECT_EQ(answer.new_tokens, 3);
  request.sampling = {.greedy = true, .top_p = 0.5, .top_k = 3, .seed = 4};
  request.sampling.logit_bias = {{5, 1.5f}};
  request.stream = 2;
  request.stop = {"x"};
  request.max_new_tokens = 9;
  request.thinking = false;
  const json body = json::parse(answerer->complete({&request, 1})[0].text);
  EXPECT_EQ(body["temperature"], 0);
  EXPECT_EQ(body["top_p"], 0.5);
  EXPECT_EQ(body["top_k"], 3);
  EXPECT_EQ(body["seed"], 6);
  EXPECT_EQ(body["stop"], json({"x"}));
  EXPECT_EQ(body["max_tokens"], 9);
  EXPECT_EQ(body["logit_bias"]["5"], 1.5);
  EXPECT_EQ(body["chat_template_kwargs"]["enable_thinking"], false);
}

TEST(ServerAnswerer, AJsonAnswerToAStreamRequestIsShown) {
  ScriptedServer server(api([](const json& body, ServedConnection& connection) {
    EXPECT_TRUE(body["stream"].get<bool>());
    connection.answer(200, chat_answer("whole").dump(), "application/json");
  }));
  std::string shown;
  const CompleteRequest request = question("hi");
  const quern::Answer answer =
      answerer_of(server, true)
          ->complete({&request, 1},
                     {.text = [&](size_t, std::string_view text) { shown += text; }})[0];
  EXPECT_EQ(answer.text, "whole");
  EXPECT_EQ(shown, "whole");
}

TEST(ServerAnswerer, ReasoningIsToldApart) {
  for (const char* name : {"reasoning_content", "reasoning"}) {
    ScriptedServer server(api([&](const json&, ServedConnection& connection) {
      std::string events;
      for (const json& delta :
           {json{{"role", "assistant"}, {"content", nullptr}}, json{{name, "I "}},
            json{{name, "think"}}, json{{"content", "so"}}}) {
        events += "data: " + json{{"choices", {{{"delta", delta}}}}}.dump() + "\n\n";
      }
      events +=
          "data: " +
          json{{"choices", {{{"delta", json::object()}, {"finish_reason", "length"}}}}}.dump() +
          "\n\ndata: [DONE]\n\n";
      connection.answer(200, events, "text/event-stream; charset=utf-8");
    }));
    std::string thought;
    const CompleteRequest request = question("hi");
    const quern::Answer answer =
        answerer_of(server, true)
            ->complete({&request, 1},
                       {.reasoning = [&](size_t, std::string_view text) { thought += text; }})[0];
    EXPECT_EQ(answer.text, "so");
    EXPECT_EQ(answer.reasoning, "I think");
    EXPECT_EQ(thought, "I think");
    EXPECT_EQ(answer.finish, FinishReason::Length);
  }
}

TEST(ServerAnswerer, RefusalsForLoadAreTriedAgainOthersAreSaid) {
  std::atomic<int> asked = 0;
  ScriptedServer server(api([&](const json& body, ServedConnection& connection) {
    const std::string text = body["messages"][0]["content"];
    if (text == "bad") {
      return connection.answer(400, R"({"message": "flat words"})", "application/json");
    }
    if (text == "broken") return connection.answer(200, "{\"choices\": 3}", "application/json");
    if (text == "stream error") {
      return connection.answer(200, "data: {\"error\": {\"message\": \"half-way\"}}\n\n",
                               "text/event-stream");
    }
    const int count = ++asked;
    if (count == 1) return connection.answer(429, "{}", "application/json", "Retry-After: 0\r\n");
    if (count == 2) return connection.close();  // without an answer
    connection.answer(200, chat_answer("at last").dump(), "application/json");
  }));
  std::vector<CompleteRequest> requests = {question("good"), question("bad"), question("broken"),
                                           question("stream error")};
  std::vector<size_t> done;
  const auto answers =
      answerer_of(server, true)->complete(requests, {.done = [&](size_t i, const quern::Answer&) {
                                            done.push_back(i);
                                          }});
  EXPECT_EQ(answers[0].text, "at last") << answers[0].failure;
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(answers[1].failure, "flat words");
  EXPECT_NE(answers[2].failure.find("choices"), std::string::npos) << answers[2].failure;
  EXPECT_EQ(answers[3].failure, "half-way");
  EXPECT_EQ(done.size(), 4u);
}

// The form of OpenAI's completions with echo and logprobs.
json echoed(const std::vector<std::pair<std::string, double>>& tokens) {
  json out = {{"tokens", json::array()},
              {"token_logprobs", json::array()},
              {"top_logprobs", json::array()},
              {"text_offset", json::array()}};
  size_t offset = 0;
  for (const auto& [token, logprob] : tokens) {
    const bool first = out["tokens"].empty();
    out["tokens"].push_back(token);
    out["text_offset"].push_back(offset);
    out["token_logprobs"].push_back(first ? json() : json(logprob));
    out["top_logprobs"].push_back(first ? json() : json{{"best", -0.5}});
    offset += token.size();
  }
  return {{"choices", {{{"text", ""}, {"logprobs", out}}}}};
}

TEST(ServerAnswerer, LikelihoodsComeFromTheEchoedPrompt) {
  bool wants_token = false;
  ScriptedServer server(api([&](const json& body, ServedConnection& connection) {
    EXPECT_TRUE(body["echo"].get<bool>());
    if (wants_token && body["max_tokens"] == 0) {
      return connection.answer(400, R"({"error": {"message": "max_tokens must be at least 1"}})");
    }
    std::vector<std::pair<std::string, double>> tokens = {
        {"The", 0}, {" sky", -4}, {" is", -1}, {" blue", -0.5}, {" now", -2}};
    if (wants_token) tokens.emplace_back("!", -9);
    connection.answer(200, echoed(tokens).dump(), "application/json");
  }));
  for (const bool token : {false, true}) {
    wants_token = token;
    const auto answerer = answerer_of(server);
    const std::vector<LikelihoodRequest> asked = {
        {.context = "The sky is", .continuation = " blue now"},
        {.context = "The sky is ", .continuation = "blue now"},
        {.context_ids = {1, 2, 3, 4}, .continuation_ids = {5}}};
    const auto got = answerer->log_likelihood(asked);
    for (const size_t i : {0, 1}) {
      ASSERT_TRUE(got[i].known) << got[i].failure;
      EXPECT_EQ(got[i].sum, -2.5);
      EXPECT_EQ(got[i].context_tokens, 3);
      EXPECT_FALSE(got[i].greedy);
    }
    EXPECT_EQ(got[2].logprobs, std::vector<float>{-2});
  }
}

TEST(ServerAnswerer, AServerWithoutPromptLogprobsIsRefusedByName) {
  ScriptedServer server(api([](const json&, ServedConnection& connection) {
    connection.answer(200, R"({"choices": [{"text": "x", "logprobs": null}]})", "application/json");
  }));
  const std::vector<LikelihoodRequest> asked = {{.context = "a", .continuation = " b"}};
  const auto got = answerer_of(server)->log_likelihood(asked);
  EXPECT_FALSE(got[0].known);
  EXPECT_EQ(got[0].failure_kind, Kind::Unsupported);
  EXPECT_NE(got[0].failure.find("no log-probabilities"), std::string::npos) << got[0].failure;
}

}  // namespace
}  // namespace quern::test
