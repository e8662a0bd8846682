// A conversation's messages: the one type that chat, server, training data and agents share, and
// the one reader of OpenAI's JSON form.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/ordered_json.h"

namespace quern {

enum class ChatRole : uint8_t { System, Developer, User, Assistant, Tool };
std::string_view name(ChatRole role) noexcept;
std::optional<ChatRole> role_of(std::string_view name) noexcept;

// A piece of a message's content. Text is the only kind so far.
struct ContentPart {
  enum class Kind : uint8_t { Text };
  Kind kind = Kind::Text;
  std::string text;
};

// A function that the assistant calls.
struct ToolCall {
  std::string id;  // may be empty
  std::string name;
  // As given: an object, or a string that holds one as JSON. Templates tell the two apart.
  OrderedJson arguments;
};

struct Message {
  ChatRole role = ChatRole::User;
  std::vector<ContentPart>
      parts;         // none: no content at all, as beside tool calls; not the same as ""
  std::string name;  // of a participant, or of the tool whose result this is
  std::string reasoning_content;     // what the assistant thought before it answered
  std::vector<ToolCall> tool_calls;  // the assistant's
  std::string tool_call_id;          // the call that a tool's result answers
  bool learn = true;                 // in training: false with "weight": 0

  Message() = default;
  Message(ChatRole who, std::string text) : role(who) {
    parts.push_back({.text = std::move(text)});
  }

  std::string text() const;  // of all parts, joined
};

struct MessageRules {
  size_t max_messages = 4096;
  // Members that no message knows: an error by name, or passed over.
  bool refuse_unknown = true;
};

// OpenAI's form: a list of {role, content, name, tool_calls, tool_call_id, reasoning_content}.
// Content is a string, a list of parts of type text (input_text, output_text, refusal), or null.
// `reasoning` and `thinking` are other names of reasoning_content. A tool call is {id, type:
// "function", function: {name, arguments}}, or {name, arguments} itself.
// `where` begins the messages of errors: "request: messages". Throws BadInput with the path of the
// field: "request: messages[2].content[0].type is 'image_url'".
std::vector<Message> read_messages(const OrderedJson& list, const std::string& where,
                                   const MessageRules& rules = {});
Message read_message(const OrderedJson& item, const std::string& where,
                     const MessageRules& rules = {});

// Back to that form, with what is empty left out.
OrderedJson to_json(const Message& message);

// A call's arguments as an object, read where they came as a string. Throws BadInput at `where` for
// what holds no object.
OrderedJson arguments_object(const ToolCall& call, const std::string& where);

}  // namespace quern
