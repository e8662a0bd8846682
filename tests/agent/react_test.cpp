// ReAct prompts and replies against the release's own functions (tests/fixtures/agents).
#include <fstream>

#include "agent/react_prompt.h"
#include "agent/reply.h"
#include "support/support.h"

namespace quern {
namespace {

std::vector<OrderedJson> records(std::string_view name) {
  std::vector<OrderedJson> out;
  std::ifstream file(test::source("tests/fixtures/agents") / name);
  for (std::string line; std::getline(file, line);) out.push_back(OrderedJson::parse(line, name));
  EXPECT_FALSE(out.empty()) << name;
  return out;
}

const OrderedJson& at(const OrderedJson& object, std::string_view key) {
  const OrderedJson* value = object.find(key);
  EXPECT_NE(value, nullptr) << key;
  return *value;
}

ReactForm form_of(std::string_view style) {
  return style == "react"  ? ReactForm::React
         : style == "demo" ? ReactForm::Demo
                           : ReactForm::OpenAI;
}

TEST(ReactPrompt, EqualsTheReleasesInAllForms) {
  for (const OrderedJson& record : records("prompts.jsonl")) {
    const ReactForm form = form_of(at(record, "style").text);
    const auto tools = react_tools(at(record, "tools"), form, "tools");
    const auto history = react_history(at(record, "history"), "history");
    EXPECT_EQ(react_prompt(form, tools, history, at(record, "query").text), at(record, "text").text)
        << at(record, "id").text;
  }
}

TEST(ReactPrompt, ConversationsWithCallsAndWhatTheReleaseRefuses) {
  for (const OrderedJson& record : records("conversations.jsonl")) {
    const auto make = [&] {
      const auto tools = react_tools(at(record, "tools"), ReactForm::OpenAI, "tools");
      const auto history = react_history(at(record, "messages"), "messages");
      return react_prompt(ReactForm::OpenAI, tools, history, std::nullopt);
    };
    if (record.find("error") != nullptr && !at(record, "error").is_null()) {
      test::expect_error(make, Kind::BadInput, {"conversation"});
    } else {
      EXPECT_EQ(make(), at(record, "text").text) << at(record, "id").text;
    }
  }
}

TEST(ReactPrompt, CallsInAnotherFormAreRefusedByName) {
  test::expect_error(
      [] {
        react_history(OrderedJson::parse(R"([{"role": "assistant", "content": null,
            "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}])",
                                         "h.json"),
                      "h.json");
      },
      Kind::BadInput, {"h.json: [0].tool_calls", "function_call"});
}

TEST(ReactPrompt, RefusesToolsThatCannotBeOffered) {
  const auto refuse = [](std::string_view tools, const std::string& word) {
    test::expect_error(
        [&] {
          react_tools(OrderedJson::parse(tools, "tools.json"), ReactForm::OpenAI, "tools.json");
        },
        Kind::BadInput, {"tools.json", word});
  };
  refuse("{}", "list");
  refuse("[1]", "[0]");
  refuse(R"([{"description": "x", "parameters": {}}])", "name");
  refuse(R"([{"name": "x\nObservation:", "parameters": {}}])", "line break");
  refuse(R"([{"name": "", "parameters": {}}])", "empty");
  refuse(R"([{"name": "x"}])", "parameters");
  refuse(R"([{"name": 3, "parameters": {}}])", "no text");
}

// 1 and 1.0 are equal, and so are objects whose members stand in another order.
bool same(const OrderedJson& a, const OrderedJson& b) {
  using Kind = OrderedJson::Kind;
  const auto is_number = [](const OrderedJson& v) {
    return v.is(Kind::Integer) || v.is(Kind::Float);
  };
  if (is_number(a) && is_number(b)) {
    if (a.kind == b.kind) return a.is(Kind::Integer) ? a.text == b.text : a.number == b.number;
    const OrderedJson& integer = a.is(Kind::Integer) ? a : b;
    return std::stod(integer.text) == (a.is(Kind::Float) ? a : b).number;
  }
  if (a.kind != b.kind || a.text != b.text || a.boolean != b.boolean) return false;
  if (a.items.size() != b.items.size() || a.members.size() != b.members.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!same(a.items[i], b.items[i])) return false;
  }
  for (const auto& [key, value] : a.members) {
    const OrderedJson* other = b.find(key);
    if (other == nullptr || !same(value, *other)) return false;
  }
  return true;
}

TEST(ReactReply, CallsAnswersAndErrors) {
  for (const OrderedJson& record : records("parse.jsonl")) {
    const std::string id = at(record, "id").text;
    const OrderedJson& want = at(record, "fixed");
    const ParsedReply got = parse_react(at(record, "response").text);
    EXPECT_EQ(got.thought, at(want, "thought").text) << id;
    EXPECT_EQ(got.error.empty(), at(want, "error").is_null()) << id << ": " << got.error;
    EXPECT_EQ(got.final.has_value(), !at(want, "final").is_null()) << id;
    EXPECT_EQ(got.final.value_or(""), at(want, "final").text) << id;
    const auto& calls = at(want, "calls").items;
    ASSERT_EQ(got.calls.size(), calls.size()) << id;
    for (size_t i = 0; i < calls.size(); ++i) {
      EXPECT_EQ(got.calls[i].name, at(calls[i], "name").text) << id;
      EXPECT_TRUE(same(got.calls[i].arguments, at(calls[i], "arguments")))
          << id << ": " << python_dumps(got.calls[i].arguments);
      EXPECT_EQ(got.calls[i].repaired, at(calls[i], "repaired").boolean) << id;
    }
  }
}

TEST(ReactReply, ParityWithTheReleasesBenchmark) {
  for (const OrderedJson& record : records("parse.jsonl")) {
    const std::string id = at(record, "id").text;
    const OrderedJson& want = at(record, "parity");
    const ReactParity got = parse_react_as_release(at(record, "response").text);
    EXPECT_EQ(got.positive, at(want, "positive").boolean) << id;
    EXPECT_EQ(got.thought, at(want, "thought").text) << id;
    EXPECT_EQ(got.action, at(want, "action").text) << id;
    EXPECT_EQ(got.action_input, at(want, "action_input").text) << id;
    EXPECT_EQ(got.observation, at(want, "observation").text) << id;
    EXPECT_EQ(got.thought_last, at(want, "thought_last").text) << id;
    EXPECT_EQ(got.final_answer, at(want, "final_answer").text) << id;
  }
}

TEST(ReactReply, HostileRepliesTakeLinearTime) {
  std::string marks, open = "Action: x\nAction Input: {\"a\": ", lines = open + "\"";
  for (int i = 0; i < 100'000; ++i) {
    marks += "Thought: Action ";
    open += '[';
    lines += "\nx";
  }
  // Each of these objects reads on to the end of the text before it is cut at the next line.
  std::string cut = "Action: x\nAction Input: {\n";
  for (int i = 0; i < 20'000; ++i) cut += "Action: 1,//Action Input: {\n";
  EXPECT_EQ(parse_react(cut).error, "bad_arguments");
  EXPECT_EQ(parse_react(marks).error, "no_action");
  EXPECT_EQ(parse_react(open).error, "bad_arguments");
  EXPECT_EQ(parse_react(lines).calls.size(), 1u);
}

}  // namespace
}  // namespace quern
