#include "agent/react_conversation.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "agent/react_prompt.h"
#include "core/error.h"

namespace quern {
namespace {

constexpr const char* kKnown = "Thought: I now know the final answer.\nFinal Answer: ";
constexpr const char* kAlso =
    "I need one more call.";  // the thought before a call made beside another

// OpenAI's {type, function: {name, description, parameters}}, or the function itself.
std::vector<ReactTool> tools_of(const OrderedJson& list) {
  if (list.is_null()) return {};
  OrderedJson out;
  out.kind = OrderedJson::Kind::Array;
  for (const OrderedJson& tool : list.items) {
    const OrderedJson* function = tool.is_object() ? tool.find("function") : nullptr;
    const OrderedJson& from = function == nullptr ? tool : *function;
    const OrderedJson* name = from.is_object() ? from.find("name") : nullptr;
    if (name == nullptr || !name->is_string()) throw_bad_input("tools: one has no name");
    const OrderedJson* description = from.find("description");
    const OrderedJson* parameters = from.find("parameters");
    OrderedJson item;
    item.set("name_for_model", *name);
    item.set("name_for_human", *name);
    item.set("description_for_model", description != nullptr && description->is_string()
                                          ? *description
                                          : OrderedJson::of_string(""));
    OrderedJson none;
    none.kind = OrderedJson::Kind::Object;
    item.set("parameters", parameters == nullptr ? none : *parameters);
    out.items.push_back(std::move(item));
  }
  return react_tools(out, ReactForm::React, "tools");
}

std::string call_text(const std::string& thought, const ToolCall& call) {
  const std::string input =
      call.arguments.is_string() ? call.arguments.text : python_dumps(call.arguments);
  return "Thought: " + thought + "\nAction: " + call.name + "\nAction Input: " + input;
}

class Writer {
 public:
  Writer(const OrderedJson& tools, const std::string& system) : tools_(tools_of(tools)) {
    out_.messages.emplace_back(ChatRole::System, system);
  }

  void add(const Message& message, bool last_of_turn) {
    if (message.role != ChatRole::Tool) call_without_result();
    switch (message.role) {
      case ChatRole::System:
      case ChatRole::Developer:
        if (out_.messages.size() > 1)
          throw_bad_input("a system message stands behind the first turn");
        out_.messages[0] = Message(ChatRole::System, message.text());
        break;
      case ChatRole::User:
        user(message.text());
        break;
      case ChatRole::Tool:
        result(message);
        break;
      case ChatRole::Assistant:
        if (message.tool_calls.empty()) {
          assistant(last_of_turn ? kKnown + message.text() : message.text(), message.learn);
          break;
        }
        if (tools_.empty()) {
          throw_bad_input("the conversation calls tools and has no list of them",
                          "the record needs 'tools'");
        }
        // Written when their results come, which may have another order.
        waiting_.assign(message.tool_calls.begin(), message.tool_calls.end());
        thought_ = message.text();
        learn_ = message.learn;
        break;
    }
  }

  ReactConversation take() {
    call_without_result();
    out_.continues = out_.messages.back().role == ChatRole::Assistant && open_;
    return std::move(out_);
  }

 private:
  void user(const std::string& text) {
    std::string turn = text;
    if (!tools_.empty()) {
      turn = !std::exchange(asked_, true) ? react_prompt(ReactForm::React, tools_, {}, text)
                                          : "Question: " + text;
    }
    out_.messages.emplace_back(ChatRole::User, std::move(turn));
  }
  void assistant(const std::string& text, bool learn) {
    open_ = false;
    Message& last = out_.messages.back();
    if (last.role == ChatRole::Assistant) {
      last.parts[0].text += "\n" + text;
      last.learn = last.learn && learn;
    } else {
      out_.messages.emplace_back(ChatRole::Assistant, text);
      out_.messages.back().learn = learn;
    }
  }
  void write_call(std::deque<ToolCall>::iterator call) {
    assistant(call_text(std::exchange(thought_, kAlso), *call), learn_);
    waiting_.erase(call);
  }
  void call_without_result() {
    if (!waiting_.empty()) write_call(waiting_.begin());
    waiting_.clear();
  }
  void result(const Message& message) {
    if (waiting_.empty()) throw_bad_input("a tool's result, and no call waits for one");
    auto call = waiting_.begin();
    if (!message.tool_call_id.empty()) {
      const auto named = std::ranges::find(waiting_, message.tool_call_id, &ToolCall::id);
      if (named != waiting_.end()) call = named;
    }
    write_call(call);
    std::string& turn = out_.messages.back().parts[0].text;
    turn += "\nObservation:";
    const size_t begin = turn.size();
    turn += ' ';
    turn += message.text();
    out_.results.push_back({out_.messages.size() - 1, begin, turn.size()});
    open_ = true;
  }

  std::vector<ReactTool> tools_;
  ReactConversation out_;
  std::deque<ToolCall> waiting_;  // calls of the last message without a result
  std::string thought_;
  bool learn_ = true;
  bool asked_ = false;  // the user has spoken, and the tools are described
  bool open_ = false;   // the last thing written is a result
};

}  // namespace

ReactConversation react_conversation(const OrderedJson& tools, const std::vector<Message>& messages,
                                     const std::string& system) {
  Writer out(tools, system);
  for (size_t i = 0; i < messages.size(); ++i) {
    out.add(messages[i], i + 1 == messages.size() || messages[i + 1].role == ChatRole::User);
  }
  return out.take();
}

}  // namespace quern
