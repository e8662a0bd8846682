// A conversation with calls as turns in ReAct's form (Yao et al. 2022), for models whose chat
// template knows no tools: what the agent asks them with, and what training teaches them.
#pragma once

#include <string>
#include <vector>

#include "core/ordered_json.h"
#include "text/messages.h"

namespace quern {

struct ReactConversation {
  std::vector<Message> messages;  // of system, user and assistant alone
  bool continues = false;         // the last one, the assistant's, ends in a result to go on from
  // Results of tools within the assistant's turns: bytes [begin, end) of a message's text, behind
  // the mark "Observation:", which the model writes itself.
  struct Result {
    size_t message, begin, end;
  };
  std::vector<Result> results;
};

// `tools` are in OpenAI's form. They are described in the user's first turn, so that no later step
// changes what stands before it; what a tool gave follows as an observation inside the assistant's
// turn. Of several calls at once the later ones stand behind the result of the one before.
// Without a system message in front, `system` is it. Throws BadInput for a tool without a name, a
// call without `tools`, a result that nothing called for.
ReactConversation react_conversation(const OrderedJson& tools, const std::vector<Message>& messages,
                                     const std::string& system);

}  // namespace quern
