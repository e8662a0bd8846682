// quern eval TASK...: a model's run over benchmarks, and the comparison of two runs.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/eval_commands.h"
#include "cli/commands/model_store.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "evaluate/paired.h"
#include "evaluate/results.h"

namespace quern::cli {
namespace {

struct RunArguments {
  ModelArguments model;
  std::vector<std::string> tasks;
  std::string data, out, samples, cache, truncate = "none", python = "/usr/bin/python3";
  int64_t limit = 0;
  uint64_t seed = 0;
  bool json = false, chat = false, base = false, pandas_none = false, unsafe = false;
  bool no_cache = false;
};

// The tasks asked for that this model can do; what is left out is said.
std::vector<const Task*> tasks_for(const RunArguments& args, const Model& model) {
  std::vector<const Task*> selected;
  for (const Task* task : select_tasks(args.tasks)) {
    const bool chat = task->kind == Task::Kind::Chat;
    if ((args.base && chat) || (args.chat && !chat)) continue;
    if (chat && !model.is_chat()) {
      const bool by_name =
          std::find(args.tasks.begin(), args.tasks.end(), task->name) != args.tasks.end();
      if (by_name) model.chat();  // says what is missing
      log::warning(fmt::format("{} is left out: the model has no chat format", task->name));
      continue;
    }
    selected.push_back(task);
  }
  if (selected.empty()) throw Error(Kind::Misused, "no task is left to run");
  return selected;
}

void write_results(const RunArguments& args, const std::string& model,
                   const nlohmann::ordered_json& identity, const RunOptions& options,
                   std::span<const TaskRun> runs) {
  if (!args.samples.empty()) {
    std::string text;
    for (const TaskRun& run : runs) text += samples_jsonl(run);
    write_file(args.samples, text);
  }
  if (args.out.empty()) return;
  const fs::path folder = args.out;
  fs::create_directories(folder);
  for (const TaskRun& run : runs) {
    const std::string& name = run.score.task->name;
    write_file(folder / (name + ".json"),
               dump(result_json(run, model, identity, options), 1) + "\n");
    write_file(folder / (name + ".samples.jsonl"), samples_jsonl(run));
    if (name == "ceval-test") {
      write_file(folder / "ceval-test.submission.json", dump(submission_json(run), 1) + "\n");
    }
  }
  write_file(folder / "table.txt", result_table(runs, model));
  write_file(folder / "results.csv", result_csv(runs, model));
  write_file(folder / "report.html", result_html(runs, model));
}

void run(const RunArguments& args) {
  if (args.tasks.empty()) {
    throw Error(Kind::Misused, "name tasks, groups of tasks, or all",
                "quern eval list names them; quern eval --help says more");
  }
  if (args.data.empty()) throw Error(Kind::Misused, "--data is missing: the benchmark files");
  if (args.chat && args.base) throw Error(Kind::Misused, "--chat and --base exclude each other");
  select_tasks(args.tasks);  // a wrong name is found before the model is loaded
  const DataFolder data(args.data);
  const fs::path path = args.model.model.empty() ? default_model() : fs::path(args.model.model);
  AnswerStore store(args.no_cache        ? fs::path(":memory:")
                    : args.cache.empty() ? default_answer_store()
                                         : fs::path(args.cache));
  Model model(path, args.model.options());
  const auto selected = tasks_for(args, model);
  LocalModel source(model, store.checkpoint_sha256(path),
                    {.truncate = args.truncate == "left" ? Truncate::Left : Truncate::Refuse});

  RunOptions options;
  options.items.pandas_none = args.pandas_none;
  options.limit = args.limit;
  options.seed = args.seed;
  options.store = &store;
  options.cancel = &interrupted;
  options.score.workers = globals().threads;
  options.score.python = {args.python, args.unsafe};
  options.score.tokenizer = &model.tokenizer();

  const InterruptScope scope;
  std::vector<TaskRun> runs;
  std::vector<std::string> failures;
  for (const Task* task : selected) {
    std::unique_ptr<Progress> counted;
    options.on_answer = [&](int64_t done, int64_t all) {
      if (!counted) {
        counted = std::make_unique<Progress>(task->name, static_cast<uint64_t>(all), "items",
                                             static_cast<uint64_t>(done));
      }
      counted->update(static_cast<uint64_t>(done));
    };
    try {
      runs.push_back(run_task(*task, data, source, options));
      if (counted) counted->finish();
    } catch (const Error& error) {
      if (interrupted) {
        write_results(args, path.string(), source.identity(), options, runs);
        throw Error(Kind::Interrupted, error.what(), error.hint());
      }
      // One task of several that cannot run does not take the others with it.
      if (selected.size() == 1) throw;
      failures.push_back(fmt::format("{}: {}", task->name, error.line()));
      log::error(failures.back());
    }
  }
  write_results(args, path.string(), source.identity(), options, runs);
  if (args.json) {
    nlohmann::ordered_json out = nlohmann::ordered_json::array();
    for (const TaskRun& one : runs) {
      out.push_back(result_json(one, path.string(), source.identity(), options));
    }
    print(dump(runs.size() == 1 && selected.size() == 1 ? out[0] : out) + "\n");
  } else {
    print(result_table(runs, path.string()));
  }
  if (!failures.empty()) {
    throw Error(Kind::Partial,
                fmt::format("{} of {} tasks did not run", failures.size(), selected.size()),
                failures.front());
  }
}

struct CompareArguments {
  std::string a, b;
  bool json = false;
};

void compare_runs(const CompareArguments& args) {
  const auto differences = compare_results(Json::parse_file(args.a), Json::parse_file(args.b));
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const PairedDifference& d : differences) {
    out.push_back({{"task", d.task},
                   {"metric", d.metric},
                   {"rule", d.rule},
                   {"a", d.a},
                   {"b", d.b},
                   {"difference", d.difference},
                   {"only_a", d.only_a},
                   {"only_b", d.only_b},
                   {"p", d.p},
                   {"changed", d.changed}});
  }
  if (args.json) {
    print(dump(out) + "\n");
    return;
  }
  for (const PairedDifference& d : differences) {
    print(
        fmt::format("{} {} ({}): {:.2f} and {:.2f}, difference {:+.2f}, p = {:.4f}; {} items "
                    "changed\n",
                    d.task, d.metric, d.rule, d.a, d.b, d.difference, d.p, d.changed.size()));
  }
}

}  // namespace

void add_eval_run(Command& command) {
  auto args = std::make_shared<RunArguments>();
  command.positional("tasks", args->tasks, "Tasks, groups of tasks, or all");
  command.option("--model", args->model.model, "Folder of a checkpoint, or a GGUF file",
                 "the shipped model");
  args->model.declare_options(command);
  command.group("Evaluation");
  command.option("--data", args->data, "Folder of benchmark files");
  command
      .option("--limit", args->limit, "Items of each task, drawn evenly over its subjects; 0: all")
      .range(int64_t{0}, int64_t{1} << 40);
  command.option("--seed", args->seed, "Of the draw");
  command.flag("--chat", args->chat, "Only tasks put to a chat model");
  command.flag("--base", args->base, "Only tasks put to a base model");
  command
      .option("--truncate", args->truncate,
              "Prompts longer than the context: none refuses them, left cuts their beginning")
      .one_of({"none", "left"});
  command.flag("--pandas-none", args->pandas_none,
               "Write 'nan' for cells that pandas takes for missing, as the release's scripts do");
  command.option("--python", args->python, "Interpreter that runs programs in the sandbox");
  command.flag("--unsafe-no-sandbox", args->unsafe,
               "Run programs without the sandbox; the result says so");
  command.group("Results");
  command.option("-o,--out", args->out, "Folder for result files, table, CSV and HTML report");
  command.option("--samples", args->samples, "JSONL file for every item");
  command.option("--cache", args->cache, "SQLite file in which answers are kept",
                 "~/.cache/quern/answers.sqlite");
  command.flag("--no-cache", args->no_cache, "Keep no answers and use none");
  command.flag("--json", args->json, "Print JSON instead of the table");
  command.refuse({"--seed"}, "goes with --limit", [args] { return args->limit == 0; });
  command.refuse({"--cache"}, "and --no-cache exclude each other",
                 [args] { return args->no_cache; });
  command.on_run([args] { run(*args); });
}

void add_eval_compare(CLI::App& parent) {
  Command command(parent, "compare", "Two runs of one task, item by item",
                  {{"eval compare a/gsm8k.json b/gsm8k.json", "McNemar's test, or bootstrap"}});
  auto args = std::make_shared<CompareArguments>();
  command.positional("a", args->a, "Result file").required();
  command.positional("b", args->b, "Result file of the same task").required();
  command.flag("--json", args->json, "Print a JSON array");
  command.on_run([args] { compare_runs(*args); });
}

}  // namespace quern::cli
