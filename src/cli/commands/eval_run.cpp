// quern eval TASK...: a model's run over benchmarks, and the comparison of two runs.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/chat_partner.h"
#include "cli/commands/eval_commands.h"
#include "cli/commands/model_store.h"
#include "core/error.h"
#include "core/launcher.h"
#include "core/log.h"
#include "core/progress.h"
#include "evaluate/paired.h"
#include "evaluate/results.h"
#include "evaluate/server_source.h"
#include "text/load.h"
#include "train/communicator.h"

namespace quern::cli {
namespace {

struct RunArguments {
  ModelArguments model;
  std::vector<std::string> tasks;
  std::string data, out, samples, cache, truncate = "none", python = "/usr/bin/python3";
  std::string endpoint, api_key_file, trusted, tokenizer, text;
  std::vector<int64_t> lengths;
  int64_t limit = 0, samples_per_task = 1;
  double temperature = 0.8, top_p = 0.95;
  uint64_t seed = 0;
  bool json = false, chat = false, base = false, pandas_none = false, unsafe = false;
  bool no_cache = false;
};

// The answering side: a model on this machine, or a server.
struct Answering {
  std::string name;              // as results have it
  std::unique_ptr<Model> model;  // null: a server
  std::unique_ptr<Answerer> server;
  std::shared_ptr<const Tokenizer> tokenizer;  // of a server's model, where it was named
  std::unique_ptr<AnswerSource> source;

  const Tokenizer* tokenizer_or_null() const {
    return model != nullptr ? &model->tokenizer() : tokenizer.get();
  }
};

Answering open_server(const RunArguments& args) {
  Answering out;
  out.server = make_server_answerer(
      {.client = {.url = args.endpoint,
                  .api_key = args.api_key_file.empty() ? "" : read_api_key(args.api_key_file),
                  .trusted = args.trusted},
       .model = args.model.model,
       .tries = 3});
  if (!args.tokenizer.empty()) out.tokenizer = load_tokenizer(args.tokenizer);
  out.name = out.server->name();
  out.source = std::make_unique<ServerSource>(*out.server);
  return out;
}

Answering open_model(const RunArguments& args, AnswerStore& store) {
  Answering out;
  const fs::path path =
      args.model.model.empty() ? default_model() : fs::path(resolve_model(args.model.model));
  out.name = path.string();
  ModelOptions options = args.model.options();
  options.threads = threads_of_process(options.threads);
  out.model = std::make_unique<Model>(path, options);
  out.source = std::make_unique<LocalModel>(
      *out.model, store.checkpoint_sha256(path),
      LocalModel::Options{.truncate = args.truncate == "left" ? Truncate::Left : Truncate::Refuse});
  return out;
}

// Why who answers cannot do a task; empty where it can.
std::string hindrance(const Task& task, const Answering& by) {
  if (task.kind == Task::Kind::Chat && by.model != nullptr && !by.model->is_chat()) {
    return "the model has no chat format";
  }
  if (task.kind == Task::Kind::Text && by.model == nullptr) {
    return "texts are measured on a model of this machine, not through a server";
  }
  if (task.needs_tokenizer && by.tokenizer_or_null() == nullptr) {
    return "its score counts the model's tokens: name the tokenizer with --tokenizer";
  }
  return {};
}

// The tasks asked for that can be done; what is left out is said.
std::vector<const Task*> tasks_for(const RunArguments& args, const DataFolder& data,
                                   const Answering& by) {
  std::vector<const Task*> selected;
  for (const Task* task : select_tasks(args.tasks)) {
    const bool chat = task->kind == Task::Kind::Chat;
    if ((args.base && chat) || (args.chat && !chat)) continue;
    const bool by_name =
        std::find(args.tasks.begin(), args.tasks.end(), task->name) != args.tasks.end();
    const std::string why = hindrance(*task, by);
    if (!why.empty()) {
      if (by_name) {
        if (chat && by.model != nullptr) by.model->chat();  // says what is missing
        throw Error(Kind::Unsupported, task->name + ": " + why);
      }
      log::warning(fmt::format("{} is left out: {}", task->name, why));
      continue;
    }
    // Cases of the user's own are no part of a group where there are none.
    if (task->optional() && !by_name && !task->present(data)) {
      log::warning(fmt::format("{} is left out: {} holds no {}", task->name, data.path().string(),
                               task->published));
      continue;
    }
    selected.push_back(task);
  }
  if (selected.empty()) throw Error(Kind::Misused, "no task is left to run");
  return selected;
}

// What a model's own options say nothing of over a server.
void check_arguments(const RunArguments& args) {
  if (args.tasks.empty()) {
    throw Error(Kind::Misused, "name tasks, groups of tasks, or all",
                "quern eval list names them; quern eval --help says more");
  }
  if (args.data.empty()) throw Error(Kind::Misused, "--data is missing: the benchmark files");
  if (args.chat && args.base) throw Error(Kind::Misused, "--chat and --base exclude each other");
  const auto selected = select_tasks(args.tasks);  // a wrong name is found before the model loads
  const bool none_drawn = std::none_of(selected.begin(), selected.end(), [](const Task* task) {
    return task->metric == "pass_at_1";
  });
  if (args.samples_per_task > 1 && none_drawn) {
    throw Error(Kind::Misused, "--samples-per-task: none of these tasks counts programs that pass",
                "humaneval, mbpp and chat-humaneval do");
  }
  if (!args.endpoint.empty() && args.truncate != "none") {
    throw Error(Kind::Misused, "--truncate needs the model's tokenizer: a server cuts nothing",
                "leave it out, or run the model with --model");
  }
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

TaskRun run_one(const Task& task, const DataFolder& data, Answering& by, const RunArguments& args,
                const RunOptions& options) {
  if (task.kind != Task::Kind::Text) return run_task(task, data, *by.source, options);
  MeterOptions meter_options;
  meter_options.identity = by.source->identity();
  meter_options.store = options.store;
  meter_options.limit = options.limit;
  meter_options.text = args.text;
  meter_options.lengths = args.lengths;
  meter_options.cancel = options.cancel;
  meter_options.on_progress = options.on_answer;
  TextMeter meter(*by.model, std::move(meter_options));
  return measure_task(task, data, meter, options);
}

// Under mpirun or srun the processes share out each task's items; when all are answered the first one
// goes on and scores them, out of the store. False on the others, which are done.
bool answer_shares(const RunArguments& args, const DataFolder& data, Answering& by,
                   std::span<const Task* const> tasks, RunOptions options) {
  constexpr double kDay = 86400;  // a process may have the long items
  const std::unique_ptr<Communicator> ranks = make_communicator();
  ranks->set_patience(kDay);
  if (ranks->alone()) return true;
  if (args.no_cache) {
    throw Error(Kind::Misused, "--no-cache: several processes meet in the cache",
                "name one for this run: --cache FILE");
  }
  options.share = ranks->rank();
  options.shares = ranks->size();
  for (const Task* task : tasks) {
    if (task->kind == Task::Kind::Text) continue;  // the first process measures texts
    ranks->set_stage(task->name);
    try {
      run_one(*task, data, by, args, options);
    } catch (const Error& error) {
      // It is met again, and told, when the first process runs the task.
      log::debug(error.line());
    }
    ranks->barrier();
    check_interrupted();
  }
  return ranks->first();
}

void run(const RunArguments& args) {
  check_arguments(args);
  const DataFolder data(args.data);
  AnswerStore store(args.no_cache        ? fs::path(":memory:")
                    : args.cache.empty() ? default_answer_store()
                                         : fs::path(args.cache));
  Answering by = args.endpoint.empty() ? open_model(args, store) : open_server(args);
  const auto selected = tasks_for(args, data, by);
  const bool measures_texts = std::ranges::any_of(
      selected, [](const Task* task) { return task->kind == Task::Kind::Text; });
  if (!measures_texts && (!args.text.empty() || !args.lengths.empty())) {
    throw Error(Kind::Misused, "--text and --lengths go with longdocs",
                "name it among the tasks, or leave them out");
  }

  RunOptions options;
  options.items.pandas_none = args.pandas_none;
  options.limit = args.limit;
  options.seed = args.seed;
  options.samples_per_task = args.samples_per_task;
  options.sampling.temperature = args.temperature;
  options.sampling.top_p = args.top_p;
  options.sampling.seed = args.seed;
  options.store = &store;
  options.cancel = &interrupted;
  options.score.workers = globals().threads;
  options.score.python = {args.python, args.unsafe};
  options.score.tokenizer = by.tokenizer_or_null();

  const InterruptScope scope;
  if (!answer_shares(args, data, by, selected, options)) return;
  std::vector<TaskRun> runs;
  std::vector<std::string> failures;
  for (const Task* task : selected) {
    std::unique_ptr<Progress> counted;
    options.on_answer = [&](int64_t done, int64_t all) {
      if (!counted) {
        const char* unit = task->kind == Task::Kind::Text ? "tokens" : "items";
        counted = std::make_unique<Progress>(task->name, static_cast<uint64_t>(all), unit,
                                             static_cast<uint64_t>(done));
      }
      counted->update(static_cast<uint64_t>(done));
    };
    try {
      runs.push_back(run_one(*task, data, by, args, options));
      if (counted) counted->finish();
    } catch (const Error& error) {
      if (interrupted) {
        write_results(args, by.name, by.source->identity(), options, runs);
        throw Error(Kind::Interrupted, error.what(), error.hint());
      }
      // One task of several that cannot run does not take the others with it.
      if (selected.size() == 1) throw;
      failures.push_back(fmt::format("{}: {}", task->name, error.line()));
      log::error(failures.back());
      // A server that stopped answering answers the next task no better.
      if (error.kind() == Kind::Partial && by.model == nullptr) break;
    }
  }
  write_results(args, by.name, by.source->identity(), options, runs);
  if (args.json) {
    nlohmann::ordered_json out = nlohmann::ordered_json::array();
    for (const TaskRun& one : runs) {
      out.push_back(result_json(one, by.name, by.source->identity(), options));
    }
    print(dump(runs.size() == 1 && selected.size() == 1 ? out[0] : out) + "\n");
  } else {
    print(result_table(runs, by.name));
  }
  if (!failures.empty()) {
    throw Error(
        Kind::Partial,
        fmt::format("{} of {} tasks did not run", selected.size() - runs.size(), selected.size()),
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
  command.option(
      "--model", args->model.model,
      "Checkpoint folder, GGUF file or model's name; with --endpoint, a name that it serves",
      "the published model, or the server's first");
  args->model.declare_options(command);
  command.group("Evaluation");
  command.option("--data", args->data, "Folder of benchmark files");
  command
      .option("--limit", args->limit, "Items of each task, drawn evenly over its subjects; 0: all")
      .range(int64_t{0}, int64_t{1} << 40);
  command.option("--seed", args->seed, "Random seed of the items and programs that are drawn");
  command
      .option("--samples-per-task", args->samples_per_task,
              "Programs drawn for each item of humaneval, mbpp and chat-humaneval, for pass@k; 1: "
              "the likeliest")
      .range(int64_t{1}, int64_t{1000});
  command.option("--temperature", args->temperature, "Sampling temperature of programs")
      .range(0.01, 10.0);
  command.option("--top-p", args->top_p, "Nucleus sampling of programs").range(0.01, 1.0);
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
  command.option("--text", args->text, "Measure longdocs on this text file instead").file();
  command
      .option("--lengths", args->lengths, "Window lengths of longdocs in tokens, comma-separated",
              "1024 to 16384; half to eight times a shorter trained length")
      .separated_by(',')
      .range(int64_t{2}, int64_t{1} << 24);
  command.group("Server");
  command.option("--endpoint", args->endpoint,
                 "Ask the OpenAI-compatible server at this URL instead of a model here");
  command.option("--api-key-file", args->api_key_file, "File with the server's API key").file();
  command
      .option("--trusted-certificates", args->trusted, "Certificates to trust beside the system's")
      .file();
  command
      .option("--tokenizer", args->tokenizer,
              "Tokenizer or model whose tokens ROUGE-L of tool calls counts")
      .path()
      .replaced(resolve_model);
  command.group("Results");
  command.option("-o,--out", args->out, "Folder for result files, table, CSV and HTML report");
  command.option("--samples", args->samples, "JSONL file for every item");
  command.option("--cache", args->cache, "SQLite file in which answers are kept",
                 "~/.cache/quern/answers.sqlite");
  command.flag("--no-cache", args->no_cache, "Keep no answers and use none");
  command.flag("--json", args->json, "Print JSON instead of the table");
  command.refuse({"--seed"}, "goes with --limit or --samples-per-task",
                 [args] { return args->limit == 0 && args->samples_per_task == 1; });
  command.refuse({"--temperature", "--top-p"}, "goes with --samples-per-task",
                 [args] { return args->samples_per_task == 1; });
  command.refuse(command.names_under("Model"), "and --endpoint exclude each other",
                 [args] { return !args->endpoint.empty(); });
  command.refuse({"--api-key-file", "--trusted-certificates", "--tokenizer"},
                 "goes with --endpoint", [args] { return args->endpoint.empty(); });
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
