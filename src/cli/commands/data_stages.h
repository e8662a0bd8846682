// The stages of `quern data`.
#pragma once

#include "cli/framework/command.h"

namespace quern::cli {

void add_data_stages(CLI::App& data);
void add_data_generate(CLI::App& data);
void add_data_decontaminate(CLI::App& data);
void add_data_mix(CLI::App& data);
void add_data_rft(CLI::App& data);
void add_data_run(CLI::App& data);
void add_data_sample(CLI::App& data);
void add_data_train(CLI::App& data);

}  // namespace quern::cli
