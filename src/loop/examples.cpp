#include "loop/examples.h"

#include <fmt/format.h>

#include "agent/code_reply.h"

namespace quern {

std::vector<Message> examples(const Toolbox& tools) {
  constexpr size_t kMost = 6;
  std::vector<Message> out;
  size_t shown = 0;
  for (const auto& tool : tools.tools()) {
    for (const ToolExample& example : tool->spec().examples) {
      if (shown == kMost) break;
      if (tools.tools().size() > 2 && &example != tool->spec().examples.data()) continue;
      ++shown;
      out.emplace_back(ChatRole::User, example.query);
      out.emplace_back(ChatRole::Assistant, "I have to find out: " + example.query);
      out.back().tool_calls.push_back({"", tool->spec().name, example.arguments});
      out.emplace_back(ChatRole::Tool, example.result);
      out.emplace_back(ChatRole::Assistant, example.answer);
    }
  }
  return out;
}

std::vector<Message> code_examples(const Toolbox& tools) {
  std::vector<Message> out;
  for (const auto& tool : tools.tools()) {
    if (tool->spec().examples.empty() || out.size() >= 6) continue;
    const ToolExample& example = tool->spec().examples[0];
    out.emplace_back(ChatRole::User, example.query);
    out.emplace_back(
        ChatRole::Assistant,
        fmt::format("{} functions: `{}` to find it.\n\nAnswer:\n```py\n{}\n```", kCodeBegin,
                    code_name(tool->spec().name), code_call(tool->spec().name, example.arguments)));
  }
  return out;
}

}  // namespace quern
