// A training run from its TOML file: what quern pretrain and quern finetune share.
#pragma once

#include <string>
#include <vector>

#include "cli/framework/command.h"
#include "train/run_config.h"

namespace quern::cli {

struct TrainingArguments {
  std::string file, out;
  std::vector<std::string> set;
  bool resume = false, dry_run = false, json = false;
};

void run_training(const TrainingArguments& args, RunKind kind);

// The file, --out, --set, --resume, --dry-run and --json, and what they do.
void add_training_options(Command& command, RunKind kind);

}  // namespace quern::cli
