#include "cli/framework/command.h"

namespace quern::cli {

// The table of commands, in the order of --help.
void add_commands(CLI::App& root) {
  constexpr void (*kCommands[])(CLI::App&) = {
      // clang-format off
      add_chat,
      add_models,
      add_pull,
      add_serve,
      add_generate,
      add_tokenize,
      add_decode,
      add_logits,
      add_perplexity,
      add_inspect,
      add_verify,
      add_convert,
      add_merge,
      add_quantize,
      add_compare,
      add_init,
      add_eval,
      add_metric,
      add_sandbox,
      add_data,
      add_plan,
      add_pretrain,
      add_finetune,
      add_plot,
      add_tokenizer,
      add_gradients,
      add_bench,
      add_agent,
      add_doctor,
      add_completion,
      add_man,
      // clang-format on
  };
  for (const auto add : kCommands) add(root);
}

}  // namespace quern::cli
