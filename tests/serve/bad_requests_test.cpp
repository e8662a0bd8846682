// Bodies and parameters that are wrong, each answered with 400 and the parameter's name, none with
// a crash or an answer that ignores it: list H of the project's reliability design.
#include "serve/test_server.h"

namespace quern::test {
namespace {

constexpr auto kChat = "/v1/chat/completions";
constexpr auto kText = "/v1/completions";
constexpr auto kEmbed = "/v1/embeddings";

class BadRequests : public testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = new TestServer(); }
  static void TearDownTestSuite() {
    EXPECT_EQ(server_->get("/health").status, 200);
    // Nothing of what was refused is still at work.
    EXPECT_TRUE(server_->wait_for("quern_running", 0));
    delete server_;
    server_ = nullptr;
  }
  static TestServer& server() { return *server_; }

  // One connection each: a refusal may end it.
  static void refused(const char* path, const std::string& body, const std::string& param) {
    const std::string shown = body.substr(0, 120);
    const Answer answer = server().post_text(path, body);
    ASSERT_EQ(answer.status, 400) << path << " " << shown << "\n" << answer.body.substr(0, 300);
    const json error = answer.parsed().at("error");
    EXPECT_EQ(error.at("type"), "invalid_request_error") << shown;
    EXPECT_FALSE(error.at("message").get<std::string>().empty()) << shown;
    EXPECT_LT(answer.body.size(), 1000u) << shown;  // what came in is not sent back whole
    if (!param.empty()) {
      EXPECT_EQ(error.at("param"), param) << shown << "\n" << answer.body;
    }
  }
  static TestServer* server_;
};
TestServer* BadRequests::server_ = nullptr;

std::string repeated(const std::string& text, size_t count) {
  std::string out;
  out.reserve(text.size() * count);
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

// `members` beside messages or a prompt.
std::string chat_with(const std::string& members) {
  return R"({"messages":[{"role":"user","content":"x"}],"max_tokens":1,)" + members + "}";
}
std::string text_with(const std::string& members) { return R"({"prompt":"x",)" + members + "}"; }

TEST_F(BadRequests, BodiesThatAreNoJson) {
  const std::string cases[] = {
      "",
      " ",
      "nul",
      "{",
      "}",
      "[]",
      "[{}]",
      "\"text\"",
      "1",
      "true",
      "null",
      "{}{}",
      R"({"prompt":"x"} x)",
      "\xEF\xBB\xBF{\"prompt\":\"x\"}",
      R"({"prompt":'x'})",
      R"({prompt:"x"})",
      R"({"prompt":"x",})",
      R"({"prompt":"x" /* no */})",
      R"({"prompt":"x","n":NaN})",
      R"({"prompt":"x","n":Infinity})",
      R"({"prompt":"x","n":01})",
      R"({"prompt":"x","n":+1})",
      R"({"prompt":"x","n":1e999})",
      "{\"prompt\":\"a\nb\"}",
      "{\"prompt\":\"\xFF\xFE\"}",
      "{\"prompt\":\"\xC0\x80\"}",
      "{\"prompt\":\"\xED\xA0\x80\"}",
      R"({"prompt":"\ud800"})",
      R"({"prompt":"\udc00x"})",
      R"({"prompt":"\u12"})",
      R"({"prompt":"\x41"})",
      R"({"prompt":"x","n":1,"n":2})",
      R"({"prompt":"x","prompt":"y"})",
      std::string("{\"prompt\":\"x\"}\0", 15),
  };
  for (const std::string& body : cases) refused(kText, body, "");
}

TEST_F(BadRequests, JsonThatIsTooDeepOrTooMuch) {
  for (const size_t depth : {65u, 1000u, 100'000u, 1'000'000u}) {
    refused(kText, text_with("\"user\":" + repeated("[", depth) + repeated("]", depth)), "");
    refused(kText, text_with("\"user\":" + repeated("[", depth)), "");
    refused(kText, text_with("\"user\":" + repeated("{\"a\":", depth)), "");
  }
  std::string keys = "\"a0\":0";
  for (int i = 1; i < 100'000; ++i) keys += ",\"a" + std::to_string(i) + "\":0";
  refused(kText, text_with(keys), "a0");
}

TEST_F(BadRequests, NumbersOfTheWrongKindOrRange) {
  struct Case {
    const char *path, *name;
    std::vector<const char*> values;
  };
  // -2: of some names -1 says what an absent one says.
  const std::vector<const char*> no_integer = {
      "1.5", "\"1\"", "true", "[]", "{}", "[1]", "1e30", "2e999", "9223372036854775809"};
  const std::vector<const char*> negative = {"-2", "-9223372036854775808"};
  std::vector<Case> cases;
  for (const char* name : {"n", "max_tokens", "top_k", "seed"}) {
    cases.push_back({kChat, name, no_integer});
    cases.push_back({kText, name, no_integer});
    if (std::string(name) == "seed") continue;
    cases.push_back({kChat, name, negative});
    cases.push_back({kText, name, negative});
  }
  cases.push_back({kText, "best_of", no_integer});
  cases.push_back({kChat, "max_completion_tokens", no_integer});
  cases.push_back({kChat, "no_repeat_ngram_size", no_integer});
  const Case more[] = {
      {kChat, "n", {"0", "17", "1000000", "2147483648"}},
      {kText, "n", {"0", "17", "1000000"}},
      {kText, "best_of", {"0", "17"}},
      {kChat, "max_tokens", {"0", "9223372036854775807", "2147483648"}},
      {kChat, "max_completion_tokens", {"0", "9223372036854775807"}},
      {kText, "max_tokens", {"0", "9223372036854775807"}},
      {kChat, "temperature", {"-1", "-0.001", "2.1", "1e308", "\"1\"", "[]", "true"}},
      {kChat, "top_p", {"-0.1", "1.1", "\"1\"", "{}"}},
      {kChat, "top_k", {"2147483648"}},
      {kChat, "min_p", {"-1", "1.5"}},
      {kChat, "typical_p", {"-1", "2"}},
      {kChat, "presence_penalty", {"-2.1", "1e9", "\"0\""}},
      {kChat, "frequency_penalty", {"-1e9", "2.5"}},
      {kChat, "repetition_penalty", {"0", "-1", "1e9"}},
      {kChat, "seed", {"18446744073709551616"}},
      {kText, "logprobs", {"-1", "21", "1000000", "true", "1.5"}},
      {kChat, "logprobs", {"1", "\"true\"", "[]"}},
      {kChat, "stream", {"1", "\"true\"", "{}"}},
      {kText, "echo", {"1", "\"yes\""}},
      {kText, "min_tokens", {"-1", "17", "\"1\""}},
      {kText, "prompt_logprobs_from", {"0", "1.5"}},
      {kText, "ignore_eos", {"0"}},
      {kText, "parse_special", {"\"x\""}},
  };
  cases.insert(cases.end(), std::begin(more), std::end(more));
  for (const Case& c : cases) {
    for (const char* value : c.values) {
      const std::string member = std::string("\"") + c.name + "\":" + value;
      const std::string body =
          c.path == kText ? text_with(member)
                          : R"({"messages":[{"role":"user","content":"x"}],)" + member + "}";
      // 2e999 is no JSON number of ours at all: that has no parameter to name.
      refused(c.path, body, std::string(value) == "2e999" ? "" : c.name);
    }
  }
  refused(kChat, chat_with(R"("logprobs":true,"top_logprobs":1000000)"), "top_logprobs");
  refused(kChat, chat_with(R"("top_logprobs":2)"), "top_logprobs");
  refused(kText, text_with(R"("n":4,"best_of":2)"), "best_of");
  refused(kText, text_with(R"("n":1,"best_of":2,"stream":true)"), "best_of");
  refused(kChat, chat_with(R"("max_completion_tokens":7)"), "max_tokens");
}

TEST_F(BadRequests, NullIsAsAbsentAndNothingElseIs) {
  for (const char* name : {"n", "max_tokens", "temperature", "top_p", "stop", "seed", "logit_bias",
                           "stream", "stream_options", "response_format", "user", "logprobs"}) {
    const std::string member = std::string("\"") + name + "\":null";
    const std::string body = std::string(name) == "max_tokens"
                                 ? text_with(member)
                                 : text_with("\"max_tokens\":1," + member);
    EXPECT_EQ(server().post_text(kText, body).status, 200) << name;
  }
  refused(kText, R"({"prompt":null})", "prompt");
  refused(kChat, R"({"messages":null})", "messages");
}

TEST_F(BadRequests, BiasesAndStops) {
  const std::string cases[] = {
      R"("logit_bias":[])",          R"("logit_bias":1)",
      R"("logit_bias":{"-1":1})",    R"("logit_bias":{"x":1})",
      R"("logit_bias":{"":1})",      R"("logit_bias":{"1.5":1})",
      R"("logit_bias":{" 1":1})",    R"("logit_bias":{"1000000":1})",
      R"("logit_bias":{"1":"1"})",   R"("logit_bias":{"1":101})",
      R"("logit_bias":{"1":-1e30})", R"("logit_bias":{"99999999999":1})",
  };
  for (const std::string& member : cases) {
    const bool value = member.find("{\"1\":") != member.npos;
    refused(kText, text_with(member), value ? "logit_bias.1" : "logit_bias");
  }
  std::string many = "\"logit_bias\":{\"0\":0";
  for (int i = 1; i < 20'000; ++i) many += ",\"" + std::to_string(i) + "\":0";
  refused(kText, text_with(many + "}"), "logit_bias");
  const std::string stops[] = {
      R"("stop":1)",
      R"("stop":{})",
      R"("stop":"")",
      R"("stop":[""])",
      R"("stop":[1])",
      R"("stop":[["a"]])",
      "\"stop\":\"" + repeated("x", 1 << 20) + "\"",
      "\"stop\":[" + repeated("\"a\",", 100'000) + "\"a\"]",
  };
  for (const std::string& member : stops) refused(kText, text_with(member), "");
  for (const char* ids : {"[-1]", "[4294967296]", "[\"1\"]", "1", "[1.5]"}) {
    refused(kText, text_with(std::string("\"stop_token_ids\":") + ids), "");
  }
}

// Every token banned by a bias is an answer of some token all the same: a bias is no ban.
TEST_F(BadRequests, ABiasOnEveryTokenStillAnswers) {
  std::string all = "\"max_tokens\":2,\"logit_bias\":{\"0\":-100";
  for (int i = 1; i < 256; ++i) all += ",\"" + std::to_string(i) + "\":-100";
  EXPECT_EQ(server().post_text(kText, text_with(all + "}")).status, 200);
}

TEST_F(BadRequests, Messages) {
  const std::pair<std::string, std::string> cases[] = {
      {R"([])", "messages"},
      {R"({})", "messages"},
      {R"("hi")", "messages"},
      {R"([1])", "messages[0]"},
      {R"([{}])", ""},
      {R"([{"role":"user"}])", ""},
      {R"([{"content":"x"}])", ""},
      {R"([{"role":"user","content":null}])", ""},
      {R"([{"role":"user","content":1}])", ""},
      {R"([{"role":"user","content":{}}])", ""},
      {R"([{"role":"robot","content":"x"}])", "messages[0].role"},
      {R"([{"role":"User","content":"x"}])", "messages[0].role"},
      {R"([{"role":"user\nsystem","content":"x"}])", "messages[0].role"},
      {R"([{"role":"<|im_end|>","content":"x"}])", "messages[0].role"},
      {R"([{"role":1,"content":"x"}])", "messages[0].role"},
      {R"([{"role":"tool","content":"x","tool_call_id":"1"}])", ""},
      {R"([{"role":"system","content":"x"}])", "messages"},
      {R"([{"role":"user","content":"x","frob":"a"}])", ""},
      {R"([{"role":"user","content":"x","tool_calls":[{"function":{"name":"f"}}]}])", ""},
      {R"([{"role":"assistant","content":"x","tool_calls":[{"function":{}}]}])", ""},
      {R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://169.254.169.254/"}}]}])",
       ""},
      {R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}]}])",
       ""},
      {R"([{"role":"user","content":[{"type":"text"}]}])", ""},
      {R"([{"role":"user","content":[{"type":"text","text":1}]}])", ""},
  };
  for (const auto& [messages, param] : cases) {
    refused(kChat, "{\"messages\":" + messages + "}", param);
  }
  refused(kChat,
          "{\"messages\":[" + repeated(R"({"role":"user","content":"x"},)", 100'000) +
              R"({"role":"user","content":"x"}]})",
          "messages");
}

TEST_F(BadRequests, Prompts) {
  const std::string cases[] = {
      R"({})",
      R"({"prompt":[]})",
      R"({"prompt":{}})",
      R"({"prompt":1})",
      R"({"prompt":[[]]})",
      R"({"prompt":[-1]})",
      R"({"prompt":[2147483648]})",
      R"({"prompt":[1.5]})",
      R"({"prompt":[1,"a"]})",
      R"({"prompt":["a",1]})",
      R"({"prompt":[["a"]]})",
      R"({"prompt":[null]})",
      R"({"prompt":[[1],[1000000]]})",
      "{\"prompt\":[" + repeated("\"a\",", 64) + "\"a\"]}",
      "{\"prompt\":\"" + repeated("x", 100'000) + "\"}",
      "{\"prompt\":[" + repeated("1,", 100'000) + "1]}",
      R"({"prompt":"x","max_tokens":0})",
  };
  for (const std::string& body : cases) refused(kText, body, "");
  for (const char* body :
       {R"({})", R"({"input":[]})", R"({"input":1})", R"({"input":[[]]})",
        R"({"input":"x","encoding_format":"hex"})", R"({"input":"x","dimensions":0})",
        R"({"input":"x","dimensions":4096})", R"({"input":[-5]})"}) {
    refused(kEmbed, body, "");
  }
}

TEST_F(BadRequests, WhatIsNotKnownIsRefusedByName) {
  for (const char* name :
       {"functions", "function_call", "chat_template", "adapter", "lora", "grammar", "frobnicate",
        "Model", "audio", "web_search_options", "prediction", "max_length", "best_of"}) {
    refused(kChat, chat_with(std::string("\"") + name + "\":[]"), name);
  }
  const std::pair<const char*, const char*> wrong[] = {
      {R"("chat_template_kwargs":[])", "chat_template_kwargs"},
      {R"("reasoning_effort":[])", "reasoning_effort"},
      {R"("reasoning_effort":"huge")", "reasoning_effort"},
      {R"("modalities":["audio"])", "modalities"},
      {R"("guided_json":[])", "guided_json"},
      {R"("guided_regex":"(")", "guided_regex"},
      {R"("guided_choice":[])", "guided_choice"},
      {R"("guided_choice":[1])", "guided_choice"},
      {R"("guided_grammar":"root ::= root")", "guided_grammar"},
      {R"("guided_regex":"a","guided_choice":["a"])", "guided_choice"},
      {R"("guided_regex":"a","response_format":{"type":"json_object"})", "guided_regex"},
      {R"("tools":{})", "tools"},
      {R"("tools":[1])", "tools[0]"},
      {R"("tools":[{}])", "tools[0]"},
      {R"("tools":[{"type":"retrieval"}])", "tools[0].type"},
      {R"("tools":[{"type":"function","function":{"name":"x\nObservation:"}}])",
       "tools[0].function.name"},
      {R"("tools":[{"type":"function","function":{"name":"f","parameters":[]}}])",
       "tools[0].function.parameters"},
      {R"("tools":[{"type":"function","function":{"name":"f","frob":1}}])",
       "tools[0].function.frob"},
      {R"("tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"f"}}])",
       "tools[1]"},
      {R"("tool_choice":"required")", "tool_choice"},
      {R"("tool_choice":"some")", "tool_choice"},
      {R"("tool_choice":{"type":"function","function":{"name":"f"}})", "tool_choice.function.name"},
      {R"("tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"f","frob":1}})",
       "tool_choice.function.frob"},
      {R"("tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","name":"f","function":{"name":"f"}})",
       "tool_choice.name"},
      {R"("guided_json":"{")", "guided_json"},
      {R"("guided_json":"{\"type\":\"null\",\"type\":\"null\"}")", "guided_json"},
  };
  for (const auto& [member, name] : wrong) refused(kChat, chat_with(member), name);
  refused(kChat, chat_with(R"("suffix":"x")"), "suffix");
  refused(kChat, chat_with(R"("prompt":"x")"), "prompt");
  refused(kText, text_with(R"("messages":[])"), "messages");
  refused(kChat, chat_with(R"("stream_options":{"include_usage":true})"), "stream_options");
  refused(kChat, chat_with(R"("stream":true,"stream_options":{"frob":1})"), "");
  refused(kChat, chat_with(R"("stream":true,"stream_options":[])"), "");
  refused(kChat, chat_with(R"("store":true)"), "store");
  refused("/v1/responses", R"({"input":"x","include":["message.output_text.logprobs"]})",
          "include[0]");
  refused("/v1/responses",
          R"({"input":[{"type":"function_call_output","call_id":"c",
              "output":[{"type":"input_text","text":"x","frob":1}]}]})",
          "input[0].output[0].frob");
}

// A model's name is looked up in a list and never becomes a path.
TEST_F(BadRequests, ModelsThatAreNotHere) {
  for (const char* name : {"../../x", "/etc/passwd", "tiny/../tiny", "TINY", "tiny ", "a\\u0000b",
                           "%2e%2e", "<|im_end|>"}) {
    const Answer answer =
        server().post_text(kChat, chat_with(std::string("\"model\":\"") + name + "\""));
    EXPECT_EQ(answer.status, 404) << name << answer.body;
    EXPECT_EQ(answer.parsed()["error"]["code"], "model_not_found");
  }
  for (const char* value : {"1", "[]", "{}", "true"}) {
    refused(kChat, chat_with(std::string("\"model\":") + value), "model");
  }
}

// What cannot be kept to is refused, never answered without.
TEST_F(BadRequests, FormatsThatAreNone) {
  for (const char* value : {"1", "[]", "\"json\"", "{}", R"({"type":1})", R"({"type":"xml"})",
                            R"({"type":"JSON_OBJECT"})", R"({"type":"json_schema"})",
                            R"({"type":"text","schema":{}})"}) {
    refused(kChat, chat_with(std::string("\"response_format\":") + value), "");
  }
}

TEST_F(BadRequests, TokenRoutes) {
  for (const char* body : {R"({})", R"({"content":1})", R"({"content":"x","frob":1})",
                           R"({"content":"x","with_pieces":1})", R"([])"}) {
    refused("/tokenize", body, "");
  }
  for (const char* body : {R"({})", R"({"tokens":1})", R"({"tokens":[-1]})",
                           R"({"tokens":[99999999]})", R"({"tokens":["1"]})"}) {
    refused("/detokenize", body, "");
  }
  for (const char* body : {R"({})", R"({"messages":[]})", R"({"messages":[{}]})"}) {
    refused("/apply-template", body, "");
    refused("/v1/chat/completions/input_tokens", body, "");
  }
  // Functions are checked as those of chat are.
  const std::pair<const char*, const char*> functions[] = {
      {R"("tools":{})", "tools"},
      {R"("tools":[1])", "tools[0]"},
      {R"("tools":[{}])", "tools[0]"},
      {R"("tools":[{"type":"function"}])", "tools[0]"},
      {R"("tools":[{"type":"function","function":{"name":"f","frob":1}}])",
       "tools[0].function.frob"},
      {R"("chat_template_kwargs":[])", "chat_template_kwargs"},
  };
  for (const auto& [member, name] : functions) {
    const std::string body =
        std::string(R"({"messages":[{"role":"user","content":"x"}],)") + member + "}";
    for (const char* path : {"/apply-template", "/tokenize", "/v1/chat/completions/input_tokens"}) {
      refused(path, body, name);
    }
  }
  // Members of which one would be passed over.
  const std::pair<const char*, const char*> together[] = {
      {R"("content":"x","prompt":"y")", "prompt"},
      {R"("content":"x","tools":[])", "tools"},
      {R"("content":"x","chat_template_kwargs":{})", "chat_template_kwargs"},
      {R"("content":"x","add_special":true,"add_special_tokens":false)", "add_special"},
      {R"("messages":[{"role":"user","content":"x"}],"content":"x")", "content"},
      {R"("messages":[{"role":"user","content":"x"}],"prompt":"x")", "prompt"},
      {R"("messages":[{"role":"user","content":"x"}],"parse_special":true)", "parse_special"},
      {R"("messages":[{"role":"user","content":"x"}],"add_special_tokens":true)",
       "add_special_tokens"},
  };
  for (const auto& [members, name] : together) {
    refused("/tokenize", std::string("{") + members + "}", name);
  }
}

}  // namespace
}  // namespace quern::test
