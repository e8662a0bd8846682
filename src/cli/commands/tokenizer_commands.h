// The subcommands of `quern tokenizer` that have files of their own.
#pragma once

#include "cli/framework/command.h"

namespace quern::cli {

void add_tokenizer_expand(CLI::App& tokenizer);
void add_tokenizer_compression(CLI::App& tokenizer);

}  // namespace quern::cli
