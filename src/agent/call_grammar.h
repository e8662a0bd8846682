// Grammars that keep what a model writes to calls of the tools it was offered.
#pragma once

#include <string>
#include <vector>

#include "agent/reply.h"
#include "core/ordered_json.h"
#include "grammar/grammar.h"
#include "text/tokenizer.h"

namespace quern {

struct CallableTool {
  std::string name;
  OrderedJson schema;   // of the arguments; null: any object
  bool strict = false;  // the arguments are kept to the schema even where no call is asked for
  std::string where;    // for messages: "tools[0].function.parameters"
};

struct CallChoice {
  std::vector<CallableTool> tools;
  bool must = false;     // the reply is a call; else it may be
  bool parallel = true;  // several calls in one reply
  std::string source;    // begins the messages of errors: "request"
};

// How the model writes calls, as its vocabulary tells: Mistral's [TOOL_CALLS], Llama's
// <|python_tag|>, else <tool_call>.
ToolStyle call_style(const Tokenizer& tokenizer);

// The grammar of a reply with calls as `choice` asks for: one or more calls where it must call, text
// and calls where it may. `reasoning`: <think> may stand before; `in_reasoning`: the prompt has opened
// it, or in ReAct has begun the thought.
// Throws FieldError naming the schema's keyword that cannot be kept to.
Grammar call_grammar(const CallChoice& choice, ToolStyle style, bool reasoning, bool in_reasoning);

}  // namespace quern
