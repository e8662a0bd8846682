#include "serve/conversation.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/react_prompt.h"
#include "core/field_error.h"

namespace quern::serve {
namespace {

void check_list(const OrderedJson& list, const std::string& where) {
  constexpr size_t kMost = 4096;
  if (!list.is_array()) fail_at(where, "is not a list of messages");
  if (list.items.empty()) fail_at(where, "is empty");
  if (list.items.size() > kMost) {
    fail_at(where, fmt::format("has {} messages, at most {} are taken", list.items.size(), kMost));
  }
}

// A string, or a list of parts of type text.
std::string plain_text(const OrderedJson& content, const std::string& where) {
  if (content.is_string()) return content.text;
  if (!content.is_array()) fail_at(where, "is neither a string nor a list of parts");
  std::string out;
  for (size_t i = 0; i < content.items.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", where, i);
    const OrderedJson& part = content.items[i];
    if (!part.is_object()) fail_at(at, "is no object");
    const std::string& type = text_member(part, "type", at);
    if (type != "text" && type != "input_text" && type != "output_text") {
      fail_at(at + ".type", fmt::format("is '{}'", printable(type, 40)),
              "this model reads parts of type text only");
    }
    only_members(part, at,
                 {"type", "text", "annotations", "logprobs", "cache_control", "citations"});
    out += text_member(part, "text", at);
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

// Adds a message in Anthropic's form: blocks of text, thinking, calls and their results.
void add_blocks(const OrderedJson& item, ChatRole role, const std::string& where,
                std::vector<Message>& messages) {
  const OrderedJson* content = find_member(item, "content");
  if (content == nullptr) fail_at(where, "lacks the member 'content'");
  const std::string at = where + ".content";
  if (content->is_string()) {
    messages.emplace_back(role, content->text);
    return;
  }
  if (!content->is_array()) fail_at(at, "is neither a string nor a list of blocks");
  Message message;
  message.role = role;
  for (size_t i = 0; i < content->items.size(); ++i) {
    const OrderedJson& block = content->items[i];
    const std::string here = fmt::format("{}[{}]", at, i);
    if (!block.is_object()) fail_at(here, "is no object");
    const std::string& type = text_member(block, "type", here);
    if (type == "text") {
      only_members(block, here, {"type", "text", "cache_control", "citations"});
      message.parts.push_back({.text = text_member(block, "text", here)});
    } else if (type == "thinking" && role == ChatRole::Assistant) {
      only_members(block, here, {"type", "thinking", "signature"});
      message.reasoning_content += text_member(block, "thinking", here);
    } else if (type == "tool_use" && role == ChatRole::Assistant) {
      only_members(block, here, {"type", "id", "name", "input", "cache_control"});
      const OrderedJson* input = find_member(block, "input");
      if (input == nullptr || !input->is_object()) fail_at(here + ".input", "is no object");
      message.tool_calls.push_back(
          {text_member(block, "id", here), text_member(block, "name", here), *input});
    } else if (type == "tool_result" && role == ChatRole::User) {
      only_members(block, here, {"type", "tool_use_id", "content", "is_error", "cache_control"});
      Message result;
      result.role = ChatRole::Tool;
      result.tool_call_id = text_member(block, "tool_use_id", here);
      const OrderedJson* text = find_member(block, "content");
      result.parts.push_back(
          {.text = text == nullptr ? std::string() : plain_text(*text, here + ".content")});
      messages.push_back(std::move(result));
    } else {
      fail_at(here + ".type",
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
      fail_at(field, "has a message with several calls, of which this model's format takes one");
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
    if (!item.is_object()) fail_at(where, "is no object");
    const OrderedJson* type = find_member(item, "type");
    if (type != nullptr && !type->is_string()) fail_at(where + ".type", "is no string");
    const std::string kind = type == nullptr ? "message" : type->text;
    if (kind == "message") {
      messages.push_back(read_message(item, "request: " + where));
    } else if (kind == "function_call") {
      only_members(item, where, {"type", "id", "call_id", "name", "arguments", "status"});
      assistant_message(messages).tool_calls.push_back(
          {text_member(item, "call_id", where), text_member(item, "name", where),
           OrderedJson::of_string(text_member(item, "arguments", where))});
    } else if (kind == "function_call_output") {
      only_members(item, where, {"type", "id", "call_id", "output", "status"});
      Message result;
      result.role = ChatRole::Tool;
      result.tool_call_id = text_member(item, "call_id", where);
      const OrderedJson* output = find_member(item, "output");
      if (output == nullptr) fail_at(where, "lacks the member 'output'");
      result.parts.push_back({.text = plain_text(*output, where + ".output")});
      messages.push_back(std::move(result));
    } else if (kind == "reasoning") {
      // Earlier reasoning is not put into the prompt: the template leaves it out as well.
    } else {
      fail_at(where + ".type", fmt::format("is '{}', expected message, function_call, "
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
    if (!item.is_object()) fail_at(where, "is no object");
    only_members(item, where, {"role", "content"});
    const std::string& role = text_member(item, "role", where);
    if (role != "user" && role != "assistant") {
      fail_at(where + ".role",
              fmt::format("is '{}', expected user or assistant", printable(role, 40)));
    }
    add_blocks(item, role == "user" ? ChatRole::User : ChatRole::Assistant, where, messages);
  }
  return messages;
}

void set_variables(const Body& body, Conversation& conversation) {
  const OrderedJson* variables = body.find("chat_template_kwargs");
  if (variables == nullptr) return;
  if (!variables->is_object()) fail_at("chat_template_kwargs", "is no object");
  if (!variables->members.empty()) conversation.variables = *variables;
  const OrderedJson* thinking = variables->find("enable_thinking");
  if (thinking != nullptr && thinking->is(OrderedJson::Kind::Bool)) {
    conversation.thinking = thinking->boolean;
  }
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
      fail_at(field, fmt::format("cannot be written as ReAct: {}", problem.what()));
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
    fail_at(about, fmt::format("cannot be written by {}: {}", model.chat().title(), problem));
  }
  return {std::move(done->ids), std::move(done->text), continues, false};
}

}  // namespace quern::serve
