// The parts of `quern eval`.
#pragma once

#include "cli/framework/command.h"

namespace quern::cli {

void add_eval_run(Command& command);      // quern eval TASK...
void add_eval_compare(CLI::App& parent);  // quern eval compare A B

}  // namespace quern::cli
