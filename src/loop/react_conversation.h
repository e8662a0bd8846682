// A conversation with calls as turns in ReAct's form.
#pragma once

#include <string>
#include <vector>

#include "text/messages.h"
#include "tools/tool.h"

namespace quern {

struct ReactConversation {
  std::vector<Message> messages;  // of system, user and assistant alone
  bool continues = false;         // the last one, the assistant's, goes on with a thought
};

// The tools are described in the first turn, so that no later step changes what stands before it.
// Their examples come first: small models learn the form from them. Then `messages`: what a tool
// gave follows as an observation inside the assistant's turn.
ReactConversation react_conversation(const Toolbox& tools, const std::vector<Message>& messages,
                                     const std::string& system);

}  // namespace quern
