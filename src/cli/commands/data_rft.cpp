// quern data rft: a model's right replies, one of each way to the answer.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands/data_stages.h"
#include "cli/commands/stage_arguments.h"
#include "data/rft.h"

namespace quern::cli {
namespace {

struct Arguments {
  StageArguments stage;
  std::vector<std::string> responses;
  std::string keep = "farthest";
};

void run(const Arguments& args) {
  StageSettings(args.stage.settings).finish();
  RftOptions options;
  options.questions = expand_inputs(args.stage.inputs);
  options.responses = expand_inputs(args.responses);
  options.kept = args.keep == "first" ? KeptPath::First : KeptPath::Farthest;
  std::vector<fs::path> files = options.questions;
  files.insert(files.end(), options.responses.begin(), options.responses.end());
  RftReport report;
  run_stage_command(
      args.stage, args.stage.options(files), "rft",
      [&](StageOptions& stage) {
        report = run_rft(options, stage);
        return report.stage;
      },
      [&] {
        StageFacts facts;
        facts.lines = fmt::format(
            "{} of {} questions have a right reply; counts of each are in "
            "{}/questions.jsonl\n",
            report.solved, report.questions, args.stage.out);
        facts.json = [&](nlohmann::ordered_json& out) {
          out["questions"] = report.questions;
          out["solved"] = report.solved;
        };
        return facts;
      });
}

}  // namespace

void add_data_rft(CLI::App& data) {
  auto args = std::make_shared<Arguments>();
  Command command(data, "rft",
                  "Keep a model's right replies to questions, one of each way to the answer",
                  {{"data rft questions.jsonl --responses replies.jsonl --out rft",
                    "gold paths and distinct right replies as conversations in rft/"}});
  args->stage.ranks = StageArguments::Ranks::FirstAlone;
  args->stage.declare(command,
                      "Files of questions, {id, question, answer}; the answer ends in "
                      "#### and a number");
  command
      .option("--responses", args->responses,
              "Files of replies, {id, response}, with the id of their question")
      .required();
  command
      .option("--keep", args->keep,
              "Of replies with the same equations: the one farthest from the others by edit "
              "distance, or the first")
      .one_of({"farthest", "first"});
  command.on_run([args] { run(*args); });
}

}  // namespace quern::cli
