// quern data chat: conversations as training reads them.
#pragma once

#include "cli/framework/command.h"

namespace quern::cli {

void add_data_chat(CLI::App& data);

}  // namespace quern::cli
