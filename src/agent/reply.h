// What a model's reply asks for: tool calls, or a final answer. One result for every form in which
// models write calls.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/ordered_json.h"

namespace quern {

struct ReplyCall {
  std::string name;
  OrderedJson arguments;  // an object
  std::string raw;        // the arguments as the model wrote them
  bool repaired = false;  // `raw` is not well-formed; what it can only mean was taken
};

struct ParsedReply {
  std::string thought;  // what stands before the first call or the answer
  std::vector<ReplyCall> calls;
  std::optional<std::string> final;  // absent with calls or an error
  std::string error;  // empty, bad_arguments, no_action, no_action_input; calls before it stay
};

enum class ToolStyle {
  React,    // Thought, Action, Action Input, Observation, Final Answer (Qwen-7B's release)
  Hermes,   // <tool_call>{"name", "arguments"}</tool_call> (Qwen2.5, Qwen3)
  Llama,    // {"name", "parameters"} as the whole reply (Llama 3)
  Mistral,  // [TOOL_CALLS] and a list, or NAME[ARGS]{...}
};
std::optional<ToolStyle> tool_style(std::string_view name) noexcept;

ParsedReply parse_reply(ToolStyle style, std::string_view reply);
// Tolerant reading: marks anywhere in a line, missing line breaks, arguments in code fences or
// JSON5, a call cut off at the end. docs/agents.md has the rules.
ParsedReply parse_react(std::string_view reply);

// The fields that the release's plugin benchmark takes from a reply, its quirks included: marks
// that are missing give slices from the positions that Python's find() returning -1 makes.
struct ReactParity {
  bool positive = false;  // the reply calls a tool
  std::string thought, action;
  std::string action_input;  // as JSON with sorted keys; empty where it cannot be read
  std::string observation, thought_last, final_answer;
};
ReactParity parse_react_as_release(std::string_view reply);

}  // namespace quern
