// Functions that a request lets the model call: read from the three APIs' forms into one, and the
// grammars that keep calls to their schemas.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "agent/call_grammar.h"
#include "core/ordered_json.h"
#include "serve/body.h"
#include "serve/parameters.h"

namespace quern::serve {

using Tool = CallableTool;

struct ToolUse {
  enum class Choice { None, Auto, Required, Named } choice = Choice::Auto;
  std::vector<Tool> tools;  // for Named the one alone
  OrderedJson offered;      // all of them in OpenAI's form, for the chat template; null: none
  bool parallel = true;

  bool any() const { return !tools.empty() && choice != Choice::None; }
  // Whether what is generated has to be kept to a grammar.
  bool constrains() const;
};

// tools, tool_choice and parallel_tool_calls of chat, responses or messages. Throws BadInput naming
// the field.
ToolUse tools_of(const Body& body, const Parameters& given);
// `tools` alone, in the form of that API.
ToolUse offered_tools(const Body& body, Where where);

// The arguments of a call as the model wrote them; absent where they are no JSON object (cut off by
// max_tokens, say) or are nested deeper than requests may be.
std::optional<nlohmann::ordered_json> read_arguments(const std::string& arguments);

// What is wrong with a call that was not kept to its schema; empty where nothing is, or where the
// schema has keywords that are not known here.
std::string call_problem(const ToolUse& use, const std::string& name, const std::string& arguments);

// The grammar of a reply with calls as `use` asks for: one or more calls where it must call, text and
// calls where it may. `reasoning`: <think> may stand before; `in_reasoning`: the prompt has opened
// it, or in ReAct has begun the thought.
// Throws BadInput naming the schema's keyword that cannot be kept to.
Grammar tool_grammar(const ToolUse& use, ToolStyle style, bool reasoning, bool in_reasoning);

}  // namespace quern::serve
