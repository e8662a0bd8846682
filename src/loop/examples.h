// The tools' examples as turns in front of a conversation: small models learn the form from them.
#pragma once

#include <vector>

#include "text/messages.h"
#include "tools/tool.h"

namespace quern {

// As calls and their results, six at most; of many tools one each.
std::vector<Message> examples(const Toolbox& tools);

// As programs that call them (agent/code_reply.h), without results.
std::vector<Message> code_examples(const Toolbox& tools);

}  // namespace quern
