// quern bench serve, declared beside quern bench model.
#pragma once

#include "cli/framework/command.h"

namespace quern::cli {

void add_bench_serve(CLI::App& bench);

}  // namespace quern::cli
