// Calls of tools: replies are read the same fed whole and byte by byte, and what a tool's grammar
// allows is a call that fits its schema.
#include "serve/tools.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/rng.h"
#include "serve/reply_reader.h"

namespace quern::serve {
namespace {

using Said = ReplyEvent::Kind;

struct Reply {
  std::string reasoning, text;
  std::vector<std::pair<std::string, std::string>> calls;
  bool operator==(const Reply&) const = default;
};

void add(Reply& reply, const std::vector<ReplyEvent>& events) {
  for (const ReplyEvent& event : events) {
    if (event.kind == Said::Reasoning) reply.reasoning += event.text;
    if (event.kind == Said::Text) reply.text += event.text;
    if (event.kind == Said::CallBegin) reply.calls.emplace_back(event.text, "");
    if (event.kind == Said::CallArguments) reply.calls.back().second += event.text;
  }
}

// Fed in pieces of every size; they must agree.
Reply read(const ReplyRules& rules, const std::string& text) {
  std::optional<Reply> first;
  for (const size_t size : {text.size() + 1, size_t{1}, size_t{2}, size_t{3}, size_t{7}}) {
    ReplyReader reader(rules);
    Reply reply;
    for (size_t at = 0; at < text.size(); at += size) add(reply, reader.put(text.substr(at, size)));
    add(reply, reader.finish());
    if (!first) first = reply;
    EXPECT_TRUE(reply == *first) << text << " in pieces of " << size << ": " << reply.text << " / "
                                 << reply.reasoning;
  }
  return *first;
}

TEST(ReplyReader, TellsReasoningFromTheAnswer) {
  const ReplyRules rules = {.reasoning = true};
  EXPECT_EQ(read(rules, "<think>\nhm, so\n</think>\n\nYes."), (Reply{"hm, so", "Yes.", {}}));
  EXPECT_EQ(read(rules, "No thought <think> here"), (Reply{"", "No thought <think> here", {}}));
  EXPECT_EQ(read(rules, "<think></think>a"), (Reply{"", "a", {}}));
  EXPECT_EQ(read(rules, "<think>never ends </thin"), (Reply{"never ends </thin", "", {}}));
  EXPECT_EQ(read(rules, "<thin"), (Reply{"", "<thin", {}}));
  EXPECT_EQ(read({.in_reasoning = true}, "so\n</think>\n\nYes."), (Reply{"so", "Yes.", {}}));
  EXPECT_EQ(read({}, "<think>a</think>b"), (Reply{"", "<think>a</think>b", {}}));
  EXPECT_EQ(read({}, " two\n"), (Reply{"", " two\n", {}}));
}

TEST(ReplyReader, ReadsCallsInEveryForm) {
  const ReplyRules hermes = {.tools = ToolStyle::Hermes};
  EXPECT_EQ(
      read(hermes, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}<\"}}\n</tool_call>"),
      (Reply{"", "", {{"f", R"({"a": "}<"})"}}}));
  EXPECT_EQ(read(hermes,
                 "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n"
                 "<tool_call>\n{\"name\": \"g\", \"arguments\": {\"x\": [1, {}]}}\n</tool_call>"),
            (Reply{"", "Let me see.", {{"f", "{}"}, {"g", R"({"x": [1, {}]})"}}}));
  EXPECT_EQ(read(hermes, "1 < 2 and <tool_box>"), (Reply{"", "1 < 2 and <tool_box>", {}}));
  // Another order, as the tolerant reader takes it.
  EXPECT_EQ(read(hermes, "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>")
                .calls.size(),
            1u);
  EXPECT_EQ(read(hermes, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"cut").calls,
            (std::vector<std::pair<std::string, std::string>>{{"f", "{\"a\": \"cut"}}));
  const ReplyRules llama = {.tools = ToolStyle::Llama};
  EXPECT_EQ(read(llama, R"({"name": "f", "parameters": {"a": 1}})"),
            (Reply{"", "", {{"f", R"({"a": 1})"}}}));
  EXPECT_EQ(
      read(llama,
           R"(<|python_tag|>{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}})")
          .calls.size(),
      2u);
  EXPECT_EQ(read(llama, R"(Use {"name": 1})"), (Reply{"", R"(Use {"name": 1})", {}}));
  const ReplyRules mistral = {.tools = ToolStyle::Mistral};
  EXPECT_EQ(
      read(mistral,
           R"([TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}])"),
      (Reply{"", "", {{"f", R"({"a": 1})"}, {"g", "{}"}}}));
  EXPECT_EQ(read(mistral, R"([TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{})"),
            (Reply{"", "", {{"f", R"({"a": 1})"}, {"g", "{}"}}}));
  EXPECT_EQ(
      read(
          {.reasoning = true, .tools = ToolStyle::Hermes},
          "<think>I call</think>\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>"),
      (Reply{"I call", "", {{"f", "{}"}}}));
}

TEST(ReplyReader, ReadsReAct) {
  const ReplyRules rules = {.tools = ToolStyle::React};
  const Reply call =
      read(rules, "Thought: I look it up.\nAction: weather\nAction Input: {\"city\": \"Oslo\"}\n");
  EXPECT_EQ(call.calls,
            (std::vector<std::pair<std::string, std::string>>{{"weather", R"({"city": "Oslo"})"}}));
  EXPECT_EQ(call.text, "");
  EXPECT_EQ(read(rules, "Thought: I now know the final answer.\nFinal Answer: It rains.").text,
            "It rains.");
  EXPECT_EQ(read(rules, "Just words.").text, "Just words.");
}

ToolUse use_of(const char* request) {
  const Body body = Body::parse(request);
  return tools_of(body, Parameters(body.fields, Chat));
}

std::optional<std::string> walk(Automaton& automaton, Rng& rng) {
  std::string text;
  Automaton::State state = automaton.start();
  for (int step = 0; step < 1500; ++step) {
    std::vector<uint8_t> ways;
    for (int byte = 0; byte < 256; ++byte) {
      if (automaton.next(state, static_cast<uint8_t>(byte)) != Automaton::kDead) {
        ways.push_back(static_cast<uint8_t>(byte));
      }
    }
    if (automaton.accepts(state) && (ways.empty() || rng.below(3) == 0)) return text;
    if (ways.empty()) return {};
    text += static_cast<char>(ways[rng.below(ways.size())]);
    state = automaton.next(state, static_cast<uint8_t>(text.back()));
  }
  return {};
}

constexpr const char* kTools = R"("tools": [
  {"type": "function", "function": {"name": "weather", "description": "d", "parameters":
    {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer",
     "minimum": 1, "maximum": 5}}, "required": ["city", "days"], "additionalProperties": false}}},
  {"type": "function", "function": {"name": "now"}}])";

TEST(ToolGrammar, AForcedReplyIsACallThatFits) {
  Rng rng(4);
  for (const ToolStyle style : {ToolStyle::Hermes, ToolStyle::Llama, ToolStyle::Mistral}) {
    for (const bool parallel : {true, false}) {
      const ToolUse use =
          use_of((std::string("{") + kTools + R"(, "parallel_tool_calls": )" +
                  (parallel ? "true" : "false") +
                  R"(, "tool_choice": {"type": "function", "function": {"name": "weather"}}})")
                     .c_str());
      Automaton automaton(tool_grammar(use, style, false, false), nullptr);
      int seen = 0;
      for (int i = 0; i < 40; ++i) {
        const auto text = walk(automaton, rng);
        if (!text) continue;
        const Reply reply = read({.tools = style}, *text);
        ASSERT_FALSE(reply.calls.empty()) << *text;
        if (!parallel) {
          EXPECT_EQ(reply.calls.size(), 1u) << *text;
        }
        EXPECT_EQ(reply.text, "") << *text;
        for (const auto& [name, arguments] : reply.calls) {
          EXPECT_EQ(name, "weather");
          const auto value = nlohmann::json::parse(arguments);
          EXPECT_TRUE(value["city"] == "Oslo" || value["city"] == "Rome");
          EXPECT_TRUE(value["days"] >= 1 && value["days"] <= 5) << arguments;
        }
        ++seen;
      }
      EXPECT_GT(seen, 20);
    }
  }
}

TEST(ToolGrammar, AnAutomaticOneMayBeTextToo) {
  std::string strict = std::string("{") + kTools + "}";
  strict.insert(strict.find("\"description\""), "\"strict\": true, ");
  const ToolUse use = use_of(strict.c_str());
  ASSERT_TRUE(use.constrains());
  Automaton automaton(tool_grammar(use, ToolStyle::Hermes, true, false), nullptr);
  const auto fits = [&](std::string_view text) {
    Automaton::State state = automaton.start();
    for (const char byte : text) state = automaton.next(state, static_cast<uint8_t>(byte));
    return automaton.accepts(state);
  };
  EXPECT_TRUE(fits("Just <tool> text."));
  EXPECT_TRUE(fits("<think>hm</think>\n\nText."));
  EXPECT_TRUE(
      fits("I ask.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": "
           "{\"city\":\"Oslo\",\"days\":3}}\n</tool_call>"));
  EXPECT_FALSE(fits("<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\":\"Paris\""));
  EXPECT_FALSE(fits("<tool_call>\nfree"));
  EXPECT_FALSE(use_of((std::string("{") + kTools + "}").c_str()).constrains());
}

TEST(Tools, CallsAreCheckedWhenTheyAreWhole) {
  const ToolUse use = use_of((std::string("{") + kTools + "}").c_str());
  EXPECT_EQ(call_problem(use, "weather", R"({"city": "Rome", "days": 5})"), "");
  EXPECT_EQ(call_problem(use, "now", "{}"), "");
  EXPECT_NE(call_problem(use, "weather", R"({"city": "Rome", "days": 6})"), "");
  EXPECT_NE(call_problem(use, "weather", R"({"city": "Rome"})"), "");
  EXPECT_NE(call_problem(use, "weather", R"({"city": "Rome", "days": 5, "x": 1})"), "");
  EXPECT_NE(call_problem(use, "weather", R"({"city": )"), "");
  EXPECT_NE(call_problem(use, "now", "[]"), "");
  EXPECT_NE(call_problem(use, "other", "{}"), "");
}

// What a model writes may be nested as deeply as its context is long.
TEST(Tools, ArgumentsAreReadAsFarAsRequestsMayBeNested) {
  EXPECT_EQ(read_arguments(R"({"b": [1], "a": 2})")->dump(), R"({"b":[1],"a":2})");
  for (const char* wrong : {"", "[]", "1", "{\"a\": ", "{} {}"}) {
    EXPECT_FALSE(read_arguments(wrong)) << wrong;
  }
  const size_t deep = 200'000;
  const std::string text = "{\"a\": " + std::string(deep, '[') + std::string(deep, ']') + "}";
  EXPECT_FALSE(read_arguments(text));
  const ToolUse use = use_of((std::string("{") + kTools + "}").c_str());
  EXPECT_NE(call_problem(use, "now", text), "");
}

TEST(ToolGrammar, WhatCannotBeKeptToIsNamed) {
  const ToolUse use =
      use_of(R"({"tools": [{"type": "function", "function": {"name": "f", "strict": true,
      "parameters": {"type": "object", "properties": {"a": {"not": {}}}}}}]})");
  try {
    tool_grammar(use, ToolStyle::Hermes, false, false);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("'not'"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("tools[0].function.parameters"), std::string::npos);
  }
}

}  // namespace
}  // namespace quern::serve
