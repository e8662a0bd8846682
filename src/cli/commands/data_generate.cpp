// quern data generate: documents and conversations out of a grammar.
#include <memory>

#include "cli/commands/data_stages.h"
#include "cli/commands/stage_arguments.h"
#include "core/error.h"
#include "data/stages/generate.h"
#include "data/synthetic/text_grammar.h"

namespace quern::cli {
namespace {

struct Arguments {
  StageArguments stage;
  int64_t count = 1000, show = 0;
  uint64_t seed = 0;
};

void run(const Arguments& args) {
  const auto files = expand_inputs(args.stage.inputs);
  if (args.show > 0) {
    for (const fs::path& file : files) {
      const TextGrammar grammar = TextGrammar::load(file);
      for (int64_t i = 0; i < args.show; ++i) {
        print(grammar.record(args.seed, static_cast<uint64_t>(i)) + "\n");
      }
    }
    return;
  }
  StageSettings settings(args.stage.settings);
  const auto stage = make_generate_stage(settings, files, args.count, args.seed);
  run_stage_command(args.stage, args.stage.options(files), "generate",
                    [&](StageOptions& options) { return run_stage(*stage, options); });
}

}  // namespace

void add_data_generate(CLI::App& data) {
  auto args = std::make_shared<Arguments>();
  Command command(data, "generate", "Make documents or conversations by a grammar in TOML",
                  {{"data generate sums.toml --count 10000 --seed 1 --out sums",
                    "10,000 records in sums/, the same for a seed"},
                   {"data generate sums.toml --show 3", "look at three of them"}});
  args->stage.declare(command, "Grammars: docs/data.md describes them",
                      StageArguments::Out::MayBeAbsent);
  command.option("--count", args->count, "Records of each grammar")
      .range(int64_t{1}, int64_t{1} << 40);
  command.option("--seed", args->seed, "Random seed: the same records for the same");
  command.option("--show", args->show, "Print so many records and write nothing")
      .range(int64_t{0}, int64_t{1} << 30);
  command.refuse({"--out", "--count", "--workers", "--json"}, "and --show exclude each other",
                 [args] { return args->show > 0; });
  command.on_run([args] {
    if (args->show == 0 && args->stage.out.empty()) {
      throw Error(Kind::Misused, "--out is missing", "a folder to make, or --show N to look");
    }
    run(*args);
  });
}

}  // namespace quern::cli
