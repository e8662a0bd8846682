// quern finetune: a model's weights, or low-rank updates of them, trained on conversations.
#include "cli/commands/training_run.h"

namespace quern::cli {

void add_finetune(CLI::App& root) {
  Command command(
      root, "finetune",
      "Tune a model on conversations or preferences, in full or by LoRA, from a TOML file",
      {{"finetune tune.toml", "over float weights LoRA, over quantized ones QLoRA"},
       {"finetune tune.toml --set lora.rank=16 --set train.steps=200", "other settings"},
       {"finetune tune.toml --resume", "go on where an interrupted run stood, to the same bytes"},
       {"finetune tune.toml --dry-run", "checks the inputs; what is trained, memory and time"}});
  add_training_options(command, RunKind::Finetune);
}

}  // namespace quern::cli
