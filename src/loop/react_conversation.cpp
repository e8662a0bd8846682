#include "loop/react_conversation.h"

#include "agent/react_prompt.h"

namespace quern {
namespace {

constexpr const char* kSystem = "You are a helpful assistant.";
constexpr const char* kKnown = "Thought: I now know the final answer.\nFinal Answer: ";

std::string call_text(const std::string& thought, const std::string& name,
                      const OrderedJson& arguments) {
  const std::string input = arguments.is_string() ? arguments.text : python_dumps(arguments);
  return "Thought: " + thought + "\nAction: " + name + "\nAction Input: " + input;
}

class Writer {
 public:
  Writer(const Toolbox& tools, const std::string& system) {
    OrderedJson list;
    list.kind = OrderedJson::Kind::Array;
    for (const auto& tool : tools.tools()) {
      OrderedJson item;
      item.set("name_for_model", OrderedJson::of_string(tool->spec().name));
      item.set("name_for_human", OrderedJson::of_string(tool->spec().name));
      item.set("description_for_model", OrderedJson::of_string(tool->spec().description));
      item.set("parameters", tool->spec().parameters);
      list.items.push_back(std::move(item));
    }
    tools_ = react_tools(list, ReactForm::React, "tools");
    out_.messages.emplace_back(ChatRole::System, system.empty() ? kSystem : system);
  }

  void user(const std::string& text) {
    const bool first = out_.messages.size() == 1;
    out_.messages.emplace_back(
        ChatRole::User,
        first ? react_prompt(ReactForm::React, tools_, {}, text) : "Question: " + text);
  }
  void assistant(const std::string& text) {
    if (out_.messages.back().role == ChatRole::Assistant) {
      out_.messages.back().parts[0].text += "\n" + text;
    } else {
      out_.messages.emplace_back(ChatRole::Assistant, text);
    }
  }
  void observation(const std::string& text) { assistant("Observation: " + text); }

  ReactConversation take() {
    out_.continues = out_.messages.back().role == ChatRole::Assistant;
    if (out_.continues) assistant("Thought:");
    return std::move(out_);
  }

 private:
  std::vector<ReactTool> tools_;
  ReactConversation out_;
};

}  // namespace

ReactConversation react_conversation(const Toolbox& tools, const std::vector<Message>& messages,
                                     const std::string& system) {
  Writer out(tools, system);
  constexpr size_t kMostExamples = 6;
  size_t shown = 0;
  for (const auto& tool : tools.tools()) {
    for (const ToolExample& example : tool->spec().examples) {
      if (shown == kMostExamples) break;
      // Many tools: one example each.
      if (tools.tools().size() > 2 && &example != tool->spec().examples.data()) continue;
      ++shown;
      out.user(example.query);
      out.assistant(
          call_text("I have to find out: " + example.query, tool->spec().name, example.arguments));
      out.observation(example.result);
      out.assistant(kKnown + example.answer);
    }
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const Message& message = messages[i];
    if (message.role == ChatRole::User) {
      out.user(message.text());
    } else if (message.role == ChatRole::Tool) {
      out.observation(message.text());
    } else if (message.tool_calls.empty()) {
      const bool answered = i + 1 == messages.size() || messages[i + 1].role == ChatRole::User;
      out.assistant(answered ? kKnown + message.text() : message.text());
    } else {
      const ToolCall& call = message.tool_calls[0];
      out.assistant(call_text(message.text(), call.name, call.arguments));
    }
  }
  return out.take();
}

}  // namespace quern
