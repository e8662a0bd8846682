// quern agent itself: a question answered with tools. agent.cpp has the commands below it.
#pragma once

#include <functional>

#include "cli/framework/command.h"

namespace quern::cli {

// Declares its options; the returned function runs it.
std::function<void()> declare_agent(Command& command);

}  // namespace quern::cli
