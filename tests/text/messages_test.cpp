#include "text/messages.h"

#include <gtest/gtest.h>

#include "support/support.h"

namespace quern {
namespace {

std::vector<Message> read(std::string json, const MessageRules& rules = {}) {
  std::replace(json.begin(), json.end(), '\'', '"');
  return read_messages(OrderedJson::parse(json, "request"), "request: messages", rules);
}

TEST(Messages, ContentIsATextOrPartsOrNothing) {
  const auto messages = read(
      "[{'role': 'developer', 'content': 'Be brief.'},"
      " {'role': 'user', 'content': [{'type': 'text', 'text': 'a'}, {'type': 'input_text', "
      "'text': 'b', 'cache_control': {'type': 'ephemeral'}}], 'name': 'Ada'},"
      " {'role': 'assistant', 'content': null, 'refusal': null, 'annotations': []},"
      " {'role': 'user', 'content': ''}]");
  ASSERT_EQ(messages.size(), 4U);
  EXPECT_EQ(messages[0].role, ChatRole::Developer);
  EXPECT_EQ(messages[1].text(), "ab");
  EXPECT_EQ(messages[1].name, "Ada");
  EXPECT_EQ(messages[2].text(), "");
  EXPECT_EQ(messages[2].parts.size(), 1U);
  EXPECT_EQ(messages[3].parts.size(), 1U);
}

TEST(Messages, ToolCallsKeepTheirArgumentsAsGiven) {
  const auto messages = read(
      "[{'role': 'assistant', 'content': null, 'reasoning': 'hm', 'tool_calls': ["
      "{'id': 'c1', 'type': 'function', 'function': {'name': 'f', 'arguments': {'b': 1, 'a': "
      "2.0}}},"
      "{'name': 'g', 'arguments': '{}'}]},"
      "{'role': 'tool', 'content': '3', 'tool_call_id': 'c1', 'name': 'f', 'weight': 0}]");
  ASSERT_EQ(messages[0].tool_calls.size(), 2U);
  EXPECT_TRUE(messages[0].parts.empty());
  EXPECT_EQ(messages[0].reasoning_content, "hm");
  EXPECT_EQ(python_dumps(messages[0].tool_calls[0].arguments), R"({"b": 1, "a": 2.0})");
  EXPECT_TRUE(messages[0].tool_calls[1].arguments.is_string());
  EXPECT_TRUE(arguments_object(messages[0].tool_calls[1], "x").is_object());
  EXPECT_EQ(messages[1].tool_call_id, "c1");
  EXPECT_FALSE(messages[1].learn);
  EXPECT_EQ(python_dumps(to_json(messages[0])),
            R"({"role": "assistant", "reasoning_content": "hm", "tool_calls": [{"id": "c1", )"
            R"("type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": 2.0}}}, )"
            R"({"type": "function", "function": {"name": "g", "arguments": "{}"}}]})");
}

TEST(Messages, ErrorsNameThePathOfTheField) {
  const struct {
    const char* json;
    const char* message;
  } cases[] = {
      {"{}", "request: messages is an object, expected a list of messages"},
      {"[]", "request: messages is empty"},
      {"[3]", "request: messages[0] is a number, expected an object"},
      {"[{'role': 'user', 'content': 'a'}, {'role': 'king', 'content': 'a'}]",
       "request: messages[1].role is 'king', expected system, developer, user, assistant or tool"},
      {"[{'content': 'a'}]", "request: messages[0] lacks the member 'role'"},
      {"[{'role': 'user'}]", "request: messages[0] lacks the member 'content'"},
      {"[{'role': 'user', 'content': null}]", "request: messages[0] lacks the member 'content'"},
      {"[{'role': 'user', 'content': 3}]",
       "request: messages[0].content is a number, expected a string or a list of parts"},
      {"[{'role': 'user', 'content': [{'type': 'text', 'text': 'a'}, {'type': 'image_url'}]}]",
       "request: messages[0].content[1].type is 'image_url'"},
      {"[{'role': 'user', 'content': [{'type': 'text'}]}]",
       "request: messages[0].content[0] lacks the member 'text'"},
      {"[{'role': 'user', 'content': 'a', 'colour': 'red'}]",
       "request: messages[0] has the member 'colour', which is not known"},
      {"[{'role': 'user', 'content': 'a', 'tool_calls': [{'name': 'f'}]}]",
       "request: messages[0].tool_calls stands in a message of the role user"},
      {"[{'role': 'assistant', 'tool_calls': [{'function': {'arguments': {}}}]}]",
       "request: messages[0].tool_calls[0].function lacks the member 'name'"},
      {"[{'role': 'assistant', 'tool_calls': [{'function': {'name': 'f', 'arguments': [1]}}]}]",
       "request: messages[0].tool_calls[0].function.arguments is an array, expected an object"},
      {"[{'role': 'user', 'content': 'a', 'weight': 0.5}]", "request: messages[0].weight is"},
  };
  for (const auto& row : cases) {
    test::expect_error([&] { read(row.json); }, Kind::BadInput, {row.message});
  }
  EXPECT_EQ(
      read("[{'role': 'user', 'content': 'a', 'colour': 'red'}]", {.refuse_unknown = false}).size(),
      1U);
  test::expect_error(
      [&] {
        ToolCall call{.name = "f", .arguments = OrderedJson::of_string("[1]")};
        arguments_object(call, "line 3: arguments");
      },
      Kind::BadInput, {"line 3: arguments holds an array, expected an object"});
}

}  // namespace
}  // namespace quern
