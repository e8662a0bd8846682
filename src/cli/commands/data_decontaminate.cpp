// quern data decontaminate: no text that models are evaluated on in what they are trained on.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands/data_stages.h"
#include "cli/commands/stage_arguments.h"
#include "data/stages/decontaminate.h"

namespace quern::cli {
namespace {

struct Arguments {
  StageArguments stage;
  std::vector<std::string> against;
  std::string field;
  double cover = 0.5;
  bool mask = false;
};

StageFacts facts_of(const std::vector<TaskContamination>& tasks, const std::string& out) {
  StageFacts facts;
  int64_t questions = 0, too_short = 0;
  for (const TaskContamination& task : tasks) {
    questions += task.questions;
    too_short += task.too_short;
    if (task.found > 0) {
      facts.lines += fmt::format("  {:<44}{:>10} of {} questions, in {} documents\n", task.task,
                                 task.found, task.questions, task.documents);
    }
  }
  facts.lines += fmt::format("{} questions were looked for", questions - too_short);
  if (too_short > 0) facts.lines += fmt::format(", {} are too short to be told", too_short);
  facts.lines += fmt::format("; each hit is in {}/contamination.jsonl\n", out);
  facts.json = [tasks](nlohmann::ordered_json& json) {
    json["tasks"] = nlohmann::ordered_json::object();
    for (const TaskContamination& task : tasks) {
      json["tasks"][task.task] = {{"questions", task.questions},
                                  {"too_short", task.too_short},
                                  {"found", task.found},
                                  {"documents", task.documents}};
    }
  };
  return facts;
}

void run(const Arguments& args) {
  DecontaminateOptions options;
  options.cover = args.cover;
  options.mask = args.mask;
  StageSettings settings(args.stage.settings);
  options.ngram = static_cast<int>(settings.integer("words", 13, 1, 64));
  options.shortest = static_cast<int>(settings.integer("shortest", 8, 1, 64));
  options.text = settings.text("text", "text");
  settings.finish();
  const QuestionIndex index(read_questions(args.against, args.field), options);
  const auto stage = make_decontaminate_stage(index, options);
  run_stage_command(
      args.stage, "decontaminate", [&](StageOptions& where) { return run_stage(*stage, where); },
      [&] { return facts_of(report_contamination(index, args.stage.out), args.stage.out); });
}

}  // namespace

void add_data_decontaminate(CLI::App& data) {
  auto args = std::make_shared<Arguments>();
  Command command(
      data, "decontaminate", "Drop documents that hold questions of evaluation sets",
      {{"data decontaminate all.jsonl.zst --against eval-data/gsm8k/test.jsonl --out clean",
        "documents that hold half of a question's word 13-grams go to "
        "clean/dropped/, the hits to clean/contamination.jsonl"}});
  args->stage.declare(command);
  command
      .option("--against", args->against,
              "Files of questions: JSONL, CSV, or folders of them; may be repeated")
      .required();
  command.option("--field", args->field, "Field or column of the question",
                 "the first of question, prompt, query, text");
  command
      .option("--cover", args->cover,
              "Least part of a question's 13-grams that makes a hit; 0: one is enough")
      .range(0.0, 1.0);
  command.flag("--mask", args->mask, "Cut the passages and keep the documents");
  command.on_run([args] { run(*args); });
}

}  // namespace quern::cli
