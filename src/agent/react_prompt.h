// Prompts that teach a model to call tools by ReAct (Yao et al. 2022), in the three forms of the
// Qwen-7B release. Models whose chat template knows tools take them through the template instead.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/ordered_json.h"

namespace quern {

enum class ReactForm {
  React,   // the user turn alone, as react_prompt.md writes it
  Demo,    // the whole ChatML text, as react_demo.py
  OpenAI,  // the same from OpenAI's messages, as openai_api.py
};

// A tool is an object {name_for_model, name_for_human, description_for_model, parameters}, or for
// OpenAI's form {name, description, parameters}. Throws BadInput naming `source` and the field.
struct ReactTool {
  std::string name, human_name, description;
  OrderedJson parameters;
  bool code_arguments = false;  // "args_format": "code"
};
std::vector<ReactTool> react_tools(const OrderedJson& list, ReactForm form,
                                   std::string_view source);

// A turn of the conversation so far.
struct ReactMessage {
  std::string role;  // system, user, assistant, function
  std::string content;
  std::optional<std::pair<std::string, std::string>> call;  // name, arguments as text
};
// [{"user", "bot"}, ...] or OpenAI's messages. Throws BadInput naming `source` and the field.
std::vector<ReactMessage> react_history(const OrderedJson& list, std::string_view source);

// The prompt. Without a query the history must end with the user's turn, or with a call or a
// result to go on from (OpenAI only). Throws BadInput for what the release refuses: roles out of
// order, no user turn.
std::string react_prompt(ReactForm form, const std::vector<ReactTool>& tools,
                         const std::vector<ReactMessage>& history,
                         const std::optional<std::string>& query);

// OpenAI's form before it is written: a system text and turns of user and assistant, the first of
// which is the user's. Whoever writes them can keep what they hold from becoming control tokens.
struct ReactTurns {
  std::string system;
  std::vector<std::string> turns;
  bool continues = false;  // the last turn, the assistant's, goes on
};
ReactTurns react_turns(const std::vector<ReactTool>& tools, std::vector<ReactMessage> messages);

}  // namespace quern
