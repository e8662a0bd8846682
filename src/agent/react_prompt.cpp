#include "agent/react_prompt.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/python_text.h"

namespace quern {
namespace {

constexpr std::string_view kSystem = "You are a helpful assistant.";

// str.lstrip("\n").rstrip()
std::string_view trim_turn(std::string_view text) noexcept {
  const size_t begin = text.find_first_not_of('\n');
  return begin == text.npos ? std::string_view() : python::rstrip(text.substr(begin));
}

// The differences between the two wordings of the release.
struct Wording {
  std::string_view noun, between_names;
  bool says_format;
};

Wording wording(ReactForm form) {
  switch (form) {
    case ReactForm::React:
      return {"tools", ",", true};
    case ReactForm::Demo:
      return {"APIs", ", ", true};
    default:
      return {"APIs", ", ", false};
  }
}

// The instruction up to "Begin!".
std::string instruction(ReactForm form, const std::vector<ReactTool>& tools) {
  const Wording words = wording(form);
  std::string descriptions, names;
  for (const ReactTool& tool : tools) {
    if (!names.empty()) {
      descriptions += "\n\n";
      names += words.between_names;
    }
    descriptions += tool.name + ": Call this tool to interact with the " + tool.human_name +
                    " API. What is the " + tool.human_name + " API useful for? " +
                    tool.description + " Parameters: " + python_dumps(tool.parameters);
    if (words.says_format) {
      descriptions += tool.code_arguments ? " Enclose the code within triple backticks (`) at the "
                                            "beginning and end of the code."
                                          : " Format the arguments as a JSON object.";
    }
    names += tool.name;
  }
  std::string out =
      "Answer the following questions as best you can. You have access to the "
      "following ";
  out.append(words.noun).append(":\n\n").append(descriptions);
  out +=
      "\n\nUse the following format:\n\n"
      "Question: the input question you must answer\n"
      "Thought: you should always think about what to do\n"
      "Action: the action to take, should be one of [";
  out += names;
  out +=
      "]\n"
      "Action Input: the input to the action\n"
      "Observation: the result of the action\n"
      "... (this Thought/Action/Action Input/Observation can be repeated zero or more times)\n"
      "Thought: I now know the final answer\n"
      "Final Answer: the final answer to the original input question\n\n"
      "Begin!";
  return out;
}

std::string wrapped(const std::string& instruction, std::string_view question) {
  return instruction + "\n\nQuestion: " + std::string(question);
}

void append_turn(std::string& out, std::string_view role, std::string_view content) {
  out.append("\n<|im_start|>").append(role).append("\n").append(content).append("<|im_end|>");
}

std::string chat_start(std::string_view system) {
  return "<|im_start|>system\n" + std::string(system) + "<|im_end|>";
}

[[noreturn]] void refuse(const std::string& problem) {
  throw_bad_input("the conversation cannot be made a prompt: " + problem,
                  "turns alternate: user, then assistant; a function's result follows a call");
}

std::string demo_prompt(const std::vector<ReactTool>& tools,
                        const std::vector<ReactMessage>& history, const std::string& query) {
  std::vector<std::string> turns;  // user and assistant in turn, then the query
  for (const ReactMessage& message : history) {
    const bool users = turns.size() % 2 == 0;
    if (message.call || message.role != (users ? "user" : "assistant")) {
      refuse("the demo form takes pairs of user and assistant only");
    }
    turns.push_back(message.content);
  }
  if (turns.size() % 2 != 0) refuse("the last user turn has no answer, yet there is a query");
  turns.push_back(query);
  // The last completed turn carries the tools; the query does where there is none.
  const size_t carrier = turns.size() == 1 ? 0 : turns.size() - 3;
  if (!tools.empty()) {
    turns[carrier] = wrapped(instruction(ReactForm::Demo, tools), turns[carrier]);
  }
  std::string out = chat_start(kSystem);
  for (size_t i = 0; i < turns.size(); ++i) {
    append_turn(out, i % 2 == 0 ? "user" : "assistant", trim_turn(turns[i]));
  }
  return out + "\n<|im_start|>assistant\n";
}

// Messages as turns of user and assistant: calls become actions, results observations.
std::vector<std::string> openai_turns(const std::vector<ReactMessage>& messages, bool has_tools) {
  std::vector<std::string> turns;
  bool last_is_user = false;
  for (size_t i = 0; i < messages.size(); ++i) {
    const ReactMessage& message = messages[i];
    std::string content(trim_turn(message.content));
    if (message.role == "function") {
      if (turns.empty() || last_is_user) {
        refuse("a function's result needs the assistant's call before it");
      }
      turns.back() += "\nObservation: " + content;
      if (i + 1 == messages.size()) turns.back() += "\nThought:";
    } else if (message.role == "assistant") {
      if (turns.empty()) refuse("the assistant needs the user before it");
      if (message.call) {
        if (!content.starts_with("Thought:")) content = "Thought: " + content;
        content += "\nAction: " + message.call->first + "\nAction Input: " + message.call->second;
      } else if (has_tools) {
        content = "Thought: I now know the final answer.\nFinal Answer: " + content;
      }
      if (last_is_user) {
        turns.emplace_back(trim_turn(content));
      } else {
        turns.back() += "\n" + content;
      }
      last_is_user = false;
    } else if (message.role == "user") {
      if (last_is_user) refuse("two user turns stand one after the other");
      turns.push_back(std::move(content));
      last_is_user = true;
    } else {
      refuse("the role " + printable(message.role, 40) + " cannot stand here");
    }
  }
  return turns;
}

std::string openai_prompt(const std::vector<ReactTool>& tools, std::vector<ReactMessage> messages) {
  const ReactTurns parts = react_turns(tools, std::move(messages));
  std::string out = chat_start(parts.system);
  for (size_t i = 0; i < parts.turns.size(); ++i) {
    append_turn(out, i % 2 == 0 ? "user" : "assistant", parts.turns[i]);
  }
  if (parts.continues) return out.substr(0, out.size() - std::string_view("<|im_end|>").size());
  return out + "\n<|im_start|>assistant\n";
}

std::string field(const OrderedJson& object, std::initializer_list<std::string_view> names,
                  const std::string& where, bool needed) {
  for (const std::string_view name : names) {
    const OrderedJson* value = object.find(name);
    if (value == nullptr) continue;
    if (!value->is_string()) throw_bad_input(fmt::format("{}.{} is no text", where, name));
    return value->text;
  }
  if (needed) throw_bad_input(fmt::format("{} has no {}", where, *names.begin()));
  return {};
}

void refuse_mark_in_name(const std::string& name, const std::string& where) {
  if (name.empty() || name.find_first_of("\r\n") != std::string::npos) {
    throw_bad_input(fmt::format("{}: the tool's name '{}' is empty or has a line break", where,
                                printable(name, 40)));
  }
}

}  // namespace

std::vector<ReactTool> react_tools(const OrderedJson& list, ReactForm form,
                                   std::string_view source) {
  if (!list.is_array()) {
    throw_bad_input(fmt::format("{}: is no list of tools", source),
                    "expected a JSON array of objects");
  }
  std::vector<ReactTool> out;
  for (size_t i = 0; i < list.items.size(); ++i) {
    const OrderedJson& item = list.items[i];
    const std::string where = fmt::format("{}: [{}]", source, i);
    if (!item.is_object()) throw_bad_input(where + " is no object");
    const bool openai = form == ReactForm::OpenAI;
    ReactTool tool;
    if (openai) {
      tool.name = field(item, {"name_for_model", "name"}, where, true);
      tool.human_name = field(item, {"name_for_human", "name"}, where, false);
      tool.description = field(item, {"description_for_model", "description"}, where, false);
    } else {
      tool.name = field(item, {"name_for_model"}, where, true);
      tool.human_name = field(item, {"name_for_human"}, where, true);
      tool.description = field(item, {"description_for_model"}, where, true);
    }
    refuse_mark_in_name(tool.name, where);
    const OrderedJson* parameters = item.find("parameters");
    if (parameters == nullptr) throw_bad_input(where + " has no parameters");
    tool.parameters = *parameters;
    const std::string format = field(item, {"args_format"}, where, false);
    if (form == ReactForm::Demo && !format.empty() && format != "json" && format != "code") {
      throw_bad_input(fmt::format("{}.args_format is '{}'", where, printable(format, 40)),
                      "json and code are known");
    }
    tool.code_arguments = form == ReactForm::Demo && format == "code";
    out.push_back(std::move(tool));
  }
  return out;
}

std::vector<ReactMessage> react_history(const OrderedJson& list, std::string_view source) {
  if (!list.is_array()) {
    throw_bad_input(fmt::format("{}: is no list of turns", source),
                    "expected a JSON array of {\"user\", \"bot\"} or {\"role\", \"content\"}");
  }
  std::vector<ReactMessage> out;
  for (size_t i = 0; i < list.items.size(); ++i) {
    const OrderedJson& item = list.items[i];
    const std::string where = fmt::format("{}: [{}]", source, i);
    if (!item.is_object()) throw_bad_input(where + " is no object");
    if (item.find("user") != nullptr) {
      out.push_back({"user", field(item, {"user"}, where, true), {}});
      out.push_back({"assistant", field(item, {"bot"}, where, true), {}});
      continue;
    }
    ReactMessage message;
    message.role = field(item, {"role"}, where, true);
    const OrderedJson* content = item.find("content");
    if (content != nullptr && !content->is_null()) {
      message.content = field(item, {"content"}, where, true);
    }
    const OrderedJson* calls = item.find("tool_calls");
    if (calls != nullptr && !calls->is_null()) {
      throw_bad_input(where + ".tool_calls is not known here", "write the call as function_call");
    }
    const OrderedJson* call = item.find("function_call");
    if (call != nullptr && !call->is_null()) {
      if (!call->is_object()) throw_bad_input(where + ".function_call is no object");
      message.call = {field(*call, {"name"}, where + ".function_call", true),
                      field(*call, {"arguments"}, where + ".function_call", true)};
    }
    out.push_back(std::move(message));
  }
  return out;
}

ReactTurns react_turns(const std::vector<ReactTool>& tools, std::vector<ReactMessage> messages) {
  const bool has_user =
      std::any_of(messages.begin(), messages.end(), [](const auto& m) { return m.role == "user"; });
  if (!has_user) refuse("there is no user turn");
  ReactTurns out;
  out.system = kSystem;
  if (messages.front().role == "system") {
    out.system = trim_turn(messages.front().content);
    messages.erase(messages.begin());
  }
  std::vector<std::string>& turns = out.turns;
  turns = openai_turns(messages, !tools.empty());
  for (std::string& turn : turns) turn = trim_turn(turn);
  out.continues = turns.size() % 2 == 0;  // the assistant's turn goes on
  if (!tools.empty()) {
    const size_t carrier = out.continues      ? turns.size() - 2
                           : turns.size() < 3 ? 0
                                              : turns.size() - 3;
    turns[carrier] = wrapped(instruction(ReactForm::OpenAI, tools), turns[carrier]);
  }
  // The release trims the wrapped turn once more where it completes text, not where it chats.
  if (out.continues) {
    for (std::string& turn : turns) turn = trim_turn(turn);
  }
  return out;
}

std::string react_prompt(ReactForm form, const std::vector<ReactTool>& tools,
                         const std::vector<ReactMessage>& history,
                         const std::optional<std::string>& query) {
  switch (form) {
    case ReactForm::React:
      if (!history.empty()) refuse("the react form is one user turn and takes no history");
      return wrapped(instruction(form, tools), query.value_or(""));
    case ReactForm::Demo:
      return demo_prompt(tools, history, query.value_or(""));
    default:
      break;
  }
  std::vector<ReactMessage> messages = history;
  if (query) messages.push_back({"user", *query, {}});
  return openai_prompt(tools, std::move(messages));
}

}  // namespace quern
