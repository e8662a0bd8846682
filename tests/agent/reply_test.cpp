// Tool calls in the forms of published chat templates, and JSON5.
#include "agent/reply.h"

#include "agent/code_reply.h"
#include "agent/json5.h"
#include "support/support.h"

namespace quern {
namespace {

std::string arguments(const ParsedReply& reply, size_t call = 0) {
  return call < reply.calls.size() ? python_dumps(reply.calls[call].arguments) : "none";
}

TEST(Json5, WhatTheSpecificationAllows) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"{a: 0x1F, b: +1, 'c': .5, d: 5., e: 1e3, f: -0x10,}",
       R"({"a": 31, "b": 1, "c": 0.5, "d": 5.0, "e": 1000.0, "f": -16})"},
      {"// note\n[1, /* two */ 2, ]", "[1, 2]"},
      {R"('it\'s \x41\u4e2d \q \
on')",
       R"("it's A中 q on")"},
      {R"({$id: 1, _x: 2, été: 3, \u0061b: 4})", R"({"$id": 1, "_x": 2, "été": 3, "ab": 4})"},
      {"{\"a\": 1, \"a\": 2}", R"({"a": 2})"},
      {"100000000000000000000000", "100000000000000000000000"},
      {"0xFFFFFFFFFFFFFFFFFFFF", "1208925819614629174706175"},
      {"-0", "0"},
      {"[NaN, -Infinity]", "[NaN, -Infinity]"},
      {"\u00A0\uFEFF\u3000null", "null"}};
  for (const auto& [text, want] : cases) {
    const auto value = parse_json5(text);
    ASSERT_TRUE(value.has_value()) << text;
    EXPECT_EQ(python_dumps(*value), want);
  }
}

TEST(Json5, WhatItDoesNot) {
  for (const std::string_view text :
       {"",         "{",         "[1,,]",     "[,]",       "{1: 2}",   "01",      "-01",
        "00",       ".",         "1e",        "0x",        "0b1",      "1_0",     "- 1",
        "--1",      "undefined", "True",      "None",      "\"a\nb\"", "\"\\1\"", "\"\\u12\"",
        "{a-b: 1}", "[1 2]",     "{\"a\" 1}", "1 /* open", "{} x",     "“a”",     "{\"a\"：1}"}) {
    EXPECT_FALSE(parse_json5(text).has_value()) << text;
  }
  EXPECT_FALSE(parse_json5(std::string(201, '[') + std::string(201, ']')).has_value());
  EXPECT_TRUE(parse_json5(std::string(200, '[') + std::string(200, ']')).has_value());
}

TEST(ToolCalls, Hermes) {
  const auto reply = parse_reply(ToolStyle::Hermes,
                                 "I look it up.\n<tool_call>\n{\"name\": \"get\", \"arguments\": "
                                 "{\"city\": \"Rome\"}}\n</tool_call>\n<tool_call>\n{\"name\": "
                                 "\"put\", \"arguments\": \"{\\\"n\\\": 1}\"}\n</tool_call>"
                                 "<|im_end|>");
  EXPECT_EQ(reply.thought, "I look it up.");
  ASSERT_EQ(reply.calls.size(), 2u);
  EXPECT_EQ(reply.calls[0].name, "get");
  EXPECT_EQ(arguments(reply), R"({"city": "Rome"})");
  EXPECT_EQ(arguments(reply, 1), R"({"n": 1})");
  EXPECT_FALSE(reply.final.has_value());

  EXPECT_EQ(arguments(parse_reply(ToolStyle::Hermes,
                                  "<tool_call>{'name': 'get', 'arguments': {'city': 'Ro")),
            R"({"city": "Ro"})");
  EXPECT_EQ(parse_reply(ToolStyle::Hermes, "Just words.").final, "Just words.");
  for (const std::string_view bad :
       {"<tool_call>get()</tool_call>", "<tool_call>{\"name\": \"x\"}</tool_call>",
        "<tool_call>{\"name\": \"x\", \"arguments\": [1]}</tool_call>", "<tool_call>"}) {
    EXPECT_EQ(parse_reply(ToolStyle::Hermes, bad).error, "bad_arguments") << bad;
  }
}

TEST(ToolCalls, Llama) {
  const auto reply = parse_reply(
      ToolStyle::Llama,
      "<|python_tag|>{\"name\": \"get\", \"parameters\": {\"city\": \"Rome\"}}; {\"name\": "
      "\"put\", \"parameters\": {}}<|eom_id|>");
  ASSERT_EQ(reply.calls.size(), 2u);
  EXPECT_EQ(arguments(reply), R"({"city": "Rome"})");
  EXPECT_EQ(reply.calls[1].name, "put");
  EXPECT_EQ(parse_reply(ToolStyle::Llama, "{\"answer\": 1}").final, "{\"answer\": 1}");
  EXPECT_EQ(parse_reply(ToolStyle::Llama, "Words.").final, "Words.");
  EXPECT_EQ(parse_reply(ToolStyle::Llama, "<|python_tag|>print(1)").error, "bad_arguments");
}

TEST(ToolCalls, Mistral) {
  const auto list = parse_reply(ToolStyle::Mistral,
                                "[TOOL_CALLS] [{\"name\": \"get\", \"arguments\": {\"city\": "
                                "\"Rome\"}, \"id\": \"a1\"}, {\"name\": \"put\", \"arguments\": "
                                "{}}]</s>");
  ASSERT_EQ(list.calls.size(), 2u);
  EXPECT_EQ(arguments(list), R"({"city": "Rome"})");
  const auto named = parse_reply(
      ToolStyle::Mistral, "Sure.[TOOL_CALLS]get[CALL_ID]x1[ARGS]{\"n\": 1}[TOOL_CALLS]put[ARGS]{}");
  EXPECT_EQ(named.thought, "Sure.");
  ASSERT_EQ(named.calls.size(), 2u);
  EXPECT_EQ(named.calls[0].name, "get");
  EXPECT_EQ(named.calls[1].name, "put");
  EXPECT_EQ(parse_reply(ToolStyle::Mistral, "[TOOL_CALLS]").error, "no_action");
  EXPECT_EQ(parse_reply(ToolStyle::Mistral, "[TOOL_CALLS]get[ARGS]x").error, "bad_arguments");
}

TEST(CodeReply, ThoughtAndProgramAreToldApart) {
  const auto parts = [](std::string_view text) {
    const CodeReply reply = parse_code_reply(text);
    return std::pair(reply.thought, reply.code);
  };
  using Parts = std::pair<std::string, std::string>;
  EXPECT_EQ(parts("I will use `a`.\n\nAnswer:\n```py\na(1)\n```\nmore"),
            Parts("I will use `a`.", "a(1)"));
  EXPECT_EQ(parts("```python\nif x:\n  y\n\n```"), Parts("", "if x:\n  y"));
  EXPECT_EQ(parts("so\n```\nz\n"), Parts("so", "z"));  // a fence that nobody closes
  EXPECT_EQ(parts("no program"), Parts("no program", ""));
  EXPECT_EQ(parts(""), Parts("", ""));
}

TEST(CodeReply, ToolsAreFunctionsOfPython) {
  const OrderedJson schema = OrderedJson::parse(
      R"({"type": "object", "properties": {"to": {}, "from": {}, "a b": {}}, "required": ["from"]})",
      "s");
  EXPECT_EQ(code_signature("server.convert-it", schema),
            "server_convert_it(from_, to=None, a_b=None)");
  EXPECT_EQ(code_signature("2x", OrderedJson()), "_2x()");
  const OrderedJson arguments = OrderedJson::parse(
      R"({"from": "mi", "n": 3, "all": true, "none": null, "l": [1, "a"]})", "a");
  EXPECT_EQ(code_call("convert", arguments),
            "convert(from_=\"mi\", n=3, all=True, none=None, l=[1, \"a\"])");
}

}  // namespace
}  // namespace quern
