// quern data mix: a training set out of sources, so much of each.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/data_stages.h"
#include "cli/commands/model_store.h"
#include "cli/commands/stage_arguments.h"
#include "core/file.h"
#include "core/progress.h"
#include "data/mix.h"
#include "text/load.h"

namespace quern::cli {
namespace {

struct Arguments {
  StageArguments stage;
  std::string tokenizer;
};

std::string size_text(double size, bool tokens) {
  return tokens ? fmt::format("{:.0f} tokens", size) : human_bytes(static_cast<uint64_t>(size));
}

StageFacts facts_of(const MixReport& report, bool tokens) {
  StageFacts facts;
  for (const MixReport::Source& source : report.sources) {
    facts.lines +=
        fmt::format("  {:<20}{:>10} documents {:>16} {:>6.1f} % {:>8.2f} epochs\n", source.name,
                    source.documents, size_text(source.size, tokens),
                    report.size > 0 ? 100 * source.size / report.size : 0, source.epochs);
  }
  facts.json = [report, tokens](nlohmann::ordered_json& out) {
    out["measured"] = tokens ? "tokens" : "bytes";
    out["size"] = report.size;
    out["sources"] = nlohmann::ordered_json::array();
    for (const MixReport::Source& source : report.sources) {
      out["sources"].push_back({{"name", source.name},
                                {"documents", source.documents},
                                {"size", source.size},
                                {"share", report.size > 0 ? source.size / report.size : 0},
                                {"available", source.available},
                                {"epochs", source.epochs}});
    }
  };
  return facts;
}

void run(const Arguments& args) {
  StageSettings(args.stage.settings).finish();
  if (args.stage.inputs.size() != 1) {
    throw Error(Kind::Misused, "data mix reads one file that names the sources");
  }
  const MixPlan plan = MixPlan::load(args.stage.inputs[0]);
  std::shared_ptr<const Tokenizer> tokenizer;
  if (!args.tokenizer.empty()) tokenizer = load_tokenizer(args.tokenizer);
  const bool tokens = tokenizer != nullptr;
  std::vector<fs::path> files;
  for (const MixSource& source : plan.sources) {
    for (const fs::path& file : expand_inputs(source.files)) files.push_back(file);
  }
  MixReport report;
  run_stage_command(
      args.stage, args.stage.options(files), "mix",
      [&](StageOptions& stage) {
        report = run_mix(
            plan, stage, tokens ? "tokens of " + args.tokenizer : "bytes",
            [&](std::string_view text) {
              return static_cast<double>(tokens ? tokenizer->encode(text).size() : text.size());
            });
        return report.stage;
      },
      [&] { return facts_of(report, tokens); });
}

}  // namespace

void add_data_mix(CLI::App& data) {
  auto args = std::make_shared<Arguments>();
  Command command(data, "mix", "Mix sources into a training set: so much of each, shuffled",
                  {{"data mix mix.toml --out mixed",
                    "sources, weights and epochs as the file says; docs/data.md describes it"}});
  args->stage.ranks = StageArguments::Ranks::FirstAlone;
  args->stage.declare(command, "File that names the sources");
  command
      .option("--tokenizer", args->tokenizer, "Count sizes in tokens of this tokenizer",
              "in bytes of text")
      .path()
      .replaced(resolve_model);
  command.on_run([args] { run(*args); });
}

}  // namespace quern::cli
