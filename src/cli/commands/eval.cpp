// quern eval: the memo's benchmarks. What is asked (list, prompts), what answers are worth (score),
// and a model's whole run.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands/eval_commands.h"
#include "cli/commands/model_store.h"
#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"
#include "evaluate/prompts.h"
#include "evaluate/score.h"
#include "text/load.h"

namespace quern::cli {
namespace {

// --- list

struct ListArguments {
  std::string data;
  bool json = false;
};

void list(const ListArguments& args) {
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const Task& task : tasks()) {
    nlohmann::ordered_json row = {{"task", task.name},     {"title", task.title},
                                  {"groups", task.groups}, {"split", task.split},
                                  {"shots", task.shots},   {"metric", task.metric},
                                  {"items", nullptr},      {"missing", nullptr}};
    if (!args.data.empty()) {
      try {
        row["items"] = task.load(DataFolder(args.data), {}).size();
      } catch (const Error& error) {
        if (error.kind() != Kind::BadInput) throw;
        row["missing"] = error.line();
      }
    }
    out.push_back(std::move(row));
  }
  if (args.json) {
    print(dump(out) + "\n");
    return;
  }
  print(fmt::format("{:<17} {:>6} {:>5}  {:<15} {}\n", "task", "items", "shots", "metric", "what"));
  for (const auto& row : out) {
    const std::string items = row["items"].is_null() ? "-" : row["items"].dump();
    print(fmt::format("{:<17} {:>6} {:>5}  {:<15} {}\n", row["task"].get<std::string>(), items,
                      row["shots"].get<int>(), row["metric"].get<std::string>(),
                      row["title"].get<std::string>()));
    if (!row["missing"].is_null()) {
      print(fmt::format("{:<17} {}\n", "", row["missing"].get<std::string>()));
    }
  }
}

// --- prompts

struct PromptArguments {
  std::vector<std::string> tasks;
  std::string data, out = "-";
  bool pandas_none = false;
};

void write_prompts(const PromptArguments& args) {
  const DataFolder data(args.data);
  std::string text;
  int64_t count = 0;
  for (const Task* task : select_tasks(args.tasks)) {
    for (const Item& item : task->load(data, {.pandas_none = args.pandas_none})) {
      text += dump(item_record(item)) + "\n";
      ++count;
    }
  }
  if (args.out == "-") {
    print(text);
    return;
  }
  write_file(args.out, text);
  fmt::print(stderr, "{}: {} prompts\n", args.out, count);
}

// --- score

struct ScoreArguments {
  std::string task, data, responses, tokenizer, samples, python = "/usr/bin/python3";
  bool partial = false, json = false, unsafe = false, pandas_none = false;
};

std::string metric_line(const std::string& rule,
                        const std::vector<std::pair<std::string, MetricValue>>& values) {
  std::string line = fmt::format("{:<8}", rule);
  for (const auto& [name, value] : values) {
    line += fmt::format("  {} {:.2f} ± {:.2f} (n = {})", name, value.value, value.standard_error,
                        value.count);
  }
  return line + "\n";
}

void score(const ScoreArguments& args) {
  const Task& task = find_task(args.task);
  const DataFolder data(args.data);
  const std::vector<Item> items = task.load(data, {.pandas_none = args.pandas_none});
  int64_t missing = 0;
  std::vector<Sample> samples =
      match_responses(items, read_responses(args.responses), args.responses, args.partial, missing);
  std::shared_ptr<const Tokenizer> tokenizer;
  if (!args.tokenizer.empty()) tokenizer = load_tokenizer(args.tokenizer);
  Progress progress("judging " + task.name, samples.size(), "items");
  ScoreOptions options;
  options.workers = globals().threads;
  options.python = {args.python, args.unsafe};
  options.tokenizer = tokenizer.get();
  options.on_progress = [&](int64_t done) { progress.update(static_cast<uint64_t>(done)); };
  TaskScore result = score_task(task, data, std::move(samples), options);
  result.missing = missing;
  progress.finish();
  if (!args.samples.empty()) {
    std::string text;
    for (const Sample& sample : result.samples) text += dump(sample_json(sample)) + "\n";
    write_file(args.samples, text);
  }
  if (args.json) {
    nlohmann::ordered_json out = {{"task", task.name}, {"version", task.version}};
    out.update(score_json(result));
    print(dump(out) + "\n");
    return;
  }
  print(fmt::format("{}: {} items{}\n", task.title, result.samples.size(),
                    missing > 0 ? fmt::format(", {} without an answer", missing) : ""));
  print(metric_line("parity", result.summary.all.parity));
  print(metric_line("fixed", result.summary.all.fixed));
  for (const auto& [name, metrics] : result.summary.groups) {
    print(metric_line(name, metrics.parity));
  }
  if (result.ties > 0) print(fmt::format("{} items have a tie at the top\n", result.ties));
  if (result.timeouts > 0) print(fmt::format("{} programs ran out of time\n", result.timeouts));
}

void declare_python(Command& command, std::string& python, bool& unsafe) {
  command.option("--python", python, "Interpreter that runs programs in the sandbox");
  command.flag("--unsafe-no-sandbox", unsafe,
               "Run programs without the sandbox; the result says so");
}

}  // namespace

void add_eval(CLI::App& root) {
  Command eval(root, "eval", "Run benchmarks and score what comes back",
               {{"eval gsm8k --model MODEL --data eval-data --out results",
                 "result file, samples and report; a second run goes on where the first ended"}});
  add_eval_run(eval);
  add_eval_compare(eval.app());
  {
    Command command(eval.app(), "list", "The tasks, their items, shots and metrics",
                    {{"eval list", "without looking at data"}});
    auto args = std::make_shared<ListArguments>();
    command.option("--data", args->data, "Folder of benchmark files, to count items");
    command.flag("--json", args->json, "Print one JSON array");
    command.on_run([args] { list(*args); });
  }
  {
    Command command(
        eval.app(), "prompts", "The exact text that goes to the tokenizer",
        {{"eval prompts gsm8k --data eval-data --out gsm8k.jsonl", "a record for each item"}});
    auto args = std::make_shared<PromptArguments>();
    command.positional("tasks", args->tasks, "Tasks, groups of tasks, or all").required();
    command.option("--data", args->data, "Folder of benchmark files").required();
    command.option("-o,--out", args->out, "JSONL file to write; - is standard output");
    command.flag(
        "--pandas-none", args->pandas_none,
        "Write 'nan' for cells that pandas takes for missing, as the release's scripts do");
    command.on_run([args] { write_prompts(*args); });
  }
  {
    Command command(eval.app(), "score", "Score recorded answers",
                    {{"eval score gsm8k --data eval-data --responses answers.jsonl --partial",
                      "of the items that have an answer"}});
    auto args = std::make_shared<ScoreArguments>();
    command.positional("task", args->task, "Which task").required();
    command.option("--data", args->data, "Folder of benchmark files").required();
    command
        .option("--responses", args->responses,
                "JSONL: {\"id\",\"response\"} or {\"id\",\"choice_logprobs\"}")
        .required();
    command
        .option("--tokenizer", args->tokenizer,
                "Tokenizer or model whose tokens ROUGE-L of tool calls counts")
        .path()
        .replaced(resolve_model);
    command.flag("--partial", args->partial, "Score the items that have an answer");
    command.option("--samples", args->samples, "JSONL file for every item's verdict");
    command.flag("--pandas-none", args->pandas_none, "Options as the release's scripts read them");
    declare_python(command, args->python, args->unsafe);
    command.flag("--json", args->json, "Print one JSON object");
    command.on_run([args] { score(*args); });
  }
}

}  // namespace quern::cli
