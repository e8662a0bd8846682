// quern pretrain: a training run from its TOML file.
#include "cli/commands/training_run.h"

namespace quern::cli {

void add_pretrain(CLI::App& root) {
  Command command(
      root, "pretrain", "Train a model from a TOML file",
      {{"pretrain recipes/mini/tiny.toml", "a toy model, in under three minutes"},
       {"pretrain run.toml --set train.steps=20 --set optimizer.learning_rate=1e-3",
        "other settings than the file's"},
       {"pretrain run.toml --resume", "go on where an interrupted run stood, to the same bytes"},
       {"pretrain run.toml --dry-run", "checks the inputs; parameters, memory, tokens and time"}});
  add_training_options(command, RunKind::Pretrain);
}

}  // namespace quern::cli
