// The stages of `quern data`.
#pragma once

#include "cli/framework/command.h"

namespace quern::cli {

void add_data_stages(CLI::App& data);

}  // namespace quern::cli
