#include "serve/conversation.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/react_prompt.h"
#include "core/field_error.h"

namespace quern::serve {
namespace {

[[noreturn]] void fail(const std::string& field, const std::string& problem,
                       std::string hint = {}) {
  throw FieldError("request", field, problem, std::move(hint));
}

const OrderedJson* find(const OrderedJson& object, std::string_view name) {
  const OrderedJson* value = object.find(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

const std::string& text_at(const OrderedJson& object, std::string_view name,
                           const std::string& where) {
  const OrderedJson* value = find(object, name);
  if (value == nullptr) fail(where, fmt::format("lacks the member '{}'", name));
  if (!value->is_string()) fail(fmt::format("{}.{}", where, name), "is no string");
  return value->text;
}

void only(const OrderedJson& object, const std::string& where,
          std::initializer_list<std::string_view> known) {
  for (const auto& [name, value] : object.members) {
    if (value.is_null() || std::find(known.begin(), known.end(), name) != known.end()) continue;
    fail(fmt::format("{}.{}", where, printable(name, 60)), "is not known here");
  }
}

void check_list(const OrderedJson& list, const std::string& where) {
  constexpr size_t kMost = 4096;
  if (!list.is_array()) fail(where, "is not a list of messages");
  if (list.items.empty()) fail(where, "is empty");
  if (list.items.size() > kMost) {
    fail(where, fmt::format("has {} messages, at most {} are taken", list.items.size(), kMost));
  }
}

// A string, or a list of parts of type text.
std::string plain_text(const OrderedJson& content, const std::string& where) {
  if (content.is_string()) return content.text;
  if (!content.is_array()) fail(where, "is neither a string nor a list of parts");
  std::string out;
  for (size_t i = 0; i < content.items.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", where, i);
    const OrderedJson& part = content.items[i];
    if (!part.is_object()) fail(at, "is no object");
    const std::string& type = text_at(part, "type", at);
    if (type != "text" && type != "input_text" && type != "output_text") {
      fail(at + ".type", fmt::format("is '{}'", printable(type, 40)),
           "this model reads parts of type text only");
    }
    out += text_at(part, "text", at);
  }
  return out;
}

// Calls belong to the assistant's message before them.
Message& assistant_message(std::vector<Message>& messages) {
  if (messages.empty() || messages.back().role != ChatRole::Assistant) {
    messages.emplace_back();
    messages.back().role = ChatRole::Assistant;
  }
  return messages.back();
}

// A message of Anthropic's: blocks of text, thinking, calls and their results.
void add_blocks(const OrderedJson& item, ChatRole role, const std::string& where,
                std::vector<Message>& messages) {
  const OrderedJson* content = find(item, "content");
  if (content == nullptr) fail(where, "lacks the member 'content'");
  const std::string at = where + ".content";
  if (content->is_string()) {
    messages.emplace_back(role, content->text);
    return;
  }
  if (!content->is_array()) fail(at, "is neither a string nor a list of blocks");
  Message message;
  message.role = role;
  for (size_t i = 0; i < content->items.size(); ++i) {
    const OrderedJson& block = content->items[i];
    const std::string here = fmt::format("{}[{}]", at, i);
    if (!block.is_object()) fail(here, "is no object");
    const std::string& type = text_at(block, "type", here);
    if (type == "text") {
      only(block, here, {"type", "text", "cache_control", "citations"});
      message.parts.push_back({.text = text_at(block, "text", here)});
    } else if (type == "thinking" && role == ChatRole::Assistant) {
      message.reasoning_content += text_at(block, "thinking", here);
    } else if (type == "tool_use" && role == ChatRole::Assistant) {
      only(block, here, {"type", "id", "name", "input", "cache_control"});
      const OrderedJson* input = find(block, "input");
      if (input == nullptr || !input->is_object()) fail(here + ".input", "is no object");
      message.tool_calls.push_back(
          {text_at(block, "id", here), text_at(block, "name", here), *input});
    } else if (type == "tool_result" && role == ChatRole::User) {
      only(block, here, {"type", "tool_use_id", "content", "is_error", "cache_control"});
      Message result;
      result.role = ChatRole::Tool;
      result.tool_call_id = text_at(block, "tool_use_id", here);
      const OrderedJson* text = find(block, "content");
      result.parts.push_back(
          {.text = text == nullptr ? std::string() : plain_text(*text, here + ".content")});
      messages.push_back(std::move(result));
    } else {
      fail(here + ".type",
           fmt::format("is '{}', which {} message has not here", printable(type, 40),
                       role == ChatRole::User ? "a user's" : "an assistant's"));
    }
  }
  if (!message.parts.empty() || !message.tool_calls.empty() || message.reasoning_content != "") {
    messages.push_back(std::move(message));
  }
}

// The conversation with its tools as the ReAct prompt of the Qwen-7B release writes it, in turns.
ChatPrompt react_conversation(const Conversation& conversation, const std::string& field,
                              bool& continues) {
  OrderedJson functions;
  functions.kind = OrderedJson::Kind::Array;
  for (const OrderedJson& tool : conversation.tools.items) {
    OrderedJson function = *tool.find("function");
    if (function.find("parameters") == nullptr) {
      OrderedJson none;
      none.kind = OrderedJson::Kind::Object;
      function.set("parameters", std::move(none));
    }
    functions.items.push_back(std::move(function));
  }
  std::vector<ReactMessage> messages;
  for (const Message& message : conversation.messages) {
    const bool result = message.role == ChatRole::Tool;
    if (message.tool_calls.size() > 1) {
      fail(field, "has a message with several calls, of which this model's format takes one");
    }
    ReactMessage turn = {result ? "function" : std::string(name(message.role)), message.text(), {}};
    if (!message.tool_calls.empty()) {
      const ToolCall& call = message.tool_calls[0];
      const std::string arguments =
          call.arguments.is_string() ? call.arguments.text : python_dumps(call.arguments);
      turn.call = {call.name, arguments};
    }
    messages.push_back(std::move(turn));
  }
  const ReactTurns parts =
      react_turns(react_tools(functions, ReactForm::OpenAI, "tools"), std::move(messages));
  ChatPrompt prompt;
  prompt.messages.emplace_back(ChatRole::System, parts.system);
  for (size_t i = 0; i < parts.turns.size(); ++i) {
    prompt.messages.emplace_back(i % 2 == 0 ? ChatRole::User : ChatRole::Assistant, parts.turns[i]);
  }
  prompt.continue_final_message = continues = parts.continues;
  prompt.add_generation_prompt = !parts.continues;
  return prompt;
}

// The text of all system messages in the first place.
std::vector<Message> with_one_system(const std::vector<Message>& messages) {
  std::string text;
  std::vector<Message> out;
  for (const Message& message : messages) {
    if (message.role != ChatRole::System) {
      out.push_back(message);
      continue;
    }
    if (!text.empty()) text += "\n\n";
    text += message.text();
  }
  out.insert(out.begin(), Message(ChatRole::System, text));
  return out;
}

}  // namespace

std::vector<Message> chat_messages(const OrderedJson& list) {
  check_list(list, "messages");
  return read_messages(list, "request: messages");
}

std::vector<Message> response_messages(const OrderedJson& input,
                                       const std::optional<std::string>& instructions) {
  std::vector<Message> messages;
  if (instructions) messages.emplace_back(ChatRole::System, *instructions);
  if (input.is_string()) {
    messages.emplace_back(ChatRole::User, input.text);
    return messages;
  }
  check_list(input, "input");
  for (size_t i = 0; i < input.items.size(); ++i) {
    const OrderedJson& item = input.items[i];
    const std::string where = fmt::format("input[{}]", i);
    if (!item.is_object()) fail(where, "is no object");
    const OrderedJson* type = find(item, "type");
    if (type != nullptr && !type->is_string()) fail(where + ".type", "is no string");
    const std::string kind = type == nullptr ? "message" : type->text;
    if (kind == "message") {
      messages.push_back(read_message(item, "request: " + where));
    } else if (kind == "function_call") {
      only(item, where, {"type", "id", "call_id", "name", "arguments", "status"});
      assistant_message(messages).tool_calls.push_back(
          {text_at(item, "call_id", where), text_at(item, "name", where),
           OrderedJson::of_string(text_at(item, "arguments", where))});
    } else if (kind == "function_call_output") {
      only(item, where, {"type", "id", "call_id", "output", "status"});
      Message result;
      result.role = ChatRole::Tool;
      result.tool_call_id = text_at(item, "call_id", where);
      const OrderedJson* output = find(item, "output");
      if (output == nullptr) fail(where, "lacks the member 'output'");
      result.parts.push_back({.text = plain_text(*output, where + ".output")});
      messages.push_back(std::move(result));
    } else if (kind == "reasoning") {
      // What was thought is not said to the model again: its template leaves it out as well.
    } else {
      fail(where + ".type", fmt::format("is '{}', expected message, function_call, "
                                        "function_call_output or reasoning",
                                        printable(kind, 40)));
    }
  }
  return messages;
}

std::vector<Message> anthropic_messages(const OrderedJson& list, const OrderedJson* system) {
  std::vector<Message> messages;
  if (system != nullptr) {
    messages.emplace_back(ChatRole::System, plain_text(*system, "system"));
  }
  check_list(list, "messages");
  for (size_t i = 0; i < list.items.size(); ++i) {
    const OrderedJson& item = list.items[i];
    const std::string where = fmt::format("messages[{}]", i);
    if (!item.is_object()) fail(where, "is no object");
    only(item, where, {"role", "content"});
    const std::string& role = text_at(item, "role", where);
    if (role != "user" && role != "assistant") {
      fail(where + ".role",
           fmt::format("is '{}', expected user or assistant", printable(role, 40)));
    }
    add_blocks(item, role == "user" ? ChatRole::User : ChatRole::Assistant, where, messages);
  }
  return messages;
}

ConversationPrompt conversation_prompt(const Conversation& conversation, const Model& model,
                                       const std::string& field) {
  if (!model.is_chat()) {
    throw FieldError("request", "", "is a conversation, but this model knows no chat",
                     "use /v1/completions");
  }
  ChatPrompt prompt;
  prompt.messages = conversation.messages;
  for (Message& message : prompt.messages) {
    if (message.role == ChatRole::Developer) message.role = ChatRole::System;
    // A call whose arguments are no JSON cannot be written again.
    for (ToolCall& call : message.tool_calls) {
      call.arguments = arguments_object(call, "request: " + field);
    }
  }
  prompt.tools = conversation.tools;
  prompt.variables = conversation.variables;
  prompt.thinking = conversation.thinking;
  if (conversation.effort) {
    prompt.variables.kind = OrderedJson::Kind::Object;
    prompt.variables.set("reasoning_effort", OrderedJson::of_string(*conversation.effort));
  }
  const Message& last = prompt.messages.back();
  const bool continues =
      last.role == ChatRole::Assistant && conversation.go_on && last.tool_calls.empty();
  prompt.continue_final_message = continues;
  prompt.add_generation_prompt = !continues;

  const auto render = [&](const ChatPrompt& wanted) -> std::optional<RenderedChat> {
    try {
      return model.chat().render(wanted);
    } catch (const Error&) {
      return std::nullopt;
    }
  };
  std::optional<RenderedChat> done = render(prompt);
  const bool has_calls = std::ranges::any_of(prompt.messages, [](const Message& message) {
    return message.role == ChatRole::Tool || !message.tool_calls.empty();
  });
  // The release's ChatML knows no tools; its models were taught ReAct.
  if (!done && model.chat().title() == "ChatML" &&
      (has_calls || !conversation.tools.items.empty())) {
    Conversation whole = conversation;
    whole.messages = prompt.messages;
    if (std::ranges::count(whole.messages, ChatRole::System, &Message::role) > 0) {
      whole.messages = with_one_system(whole.messages);
    }
    bool goes_on = false;
    try {
      const ChatPrompt wanted = react_conversation(whole, field, goes_on);
      RenderedChat text = model.chat().render(wanted);
      return {std::move(text.ids), std::move(text.text), goes_on, true};
    } catch (const FieldError&) {
      throw;
    } catch (const Error& problem) {
      fail(field, fmt::format("cannot be written as ReAct: {}", problem.what()));
    }
  }
  const auto systems = std::ranges::count(prompt.messages, ChatRole::System, &Message::role);
  const bool scattered =
      systems > 1 || (systems == 1 && prompt.messages.front().role != ChatRole::System);
  ChatPrompt other = prompt;
  if (!done && scattered) {
    other.messages = with_one_system(prompt.messages);
    done = render(other);
  }
  if (!done && conversation.effort) {
    // No template has to know the hint.
    other.variables = conversation.variables;
    done = render(other);
  }
  if (!done) {
    std::string about = field, problem;
    try {
      model.chat().render(other);
    } catch (const Error& error) {
      problem = error.what();
    }
    if (!other.tools.is_null()) {
      other.tools = {};
      if (render(other)) about = "tools";
    }
    fail(about, fmt::format("cannot be written by {}: {}", model.chat().title(), problem));
  }
  return {std::move(done->ids), std::move(done->text), continues, false};
}

}  // namespace quern::serve
