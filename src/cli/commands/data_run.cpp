// quern data run: a chain of stages, each as `quern data STAGE` runs it.
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "cli/commands/data_stages.h"
#include "cli/framework/app_tree.h"
#include "cli/framework/command.h"
#include "core/error.h"
#include "core/file.h"
#include "core/launcher.h"
#include "core/log.h"
#include "data/flow/pipeline_file.h"
#include "data/flow/pipeline_report.h"
#include "data/pipeline/shards.h"

extern char** environ;

namespace quern::cli {
namespace {

struct Arguments {
  std::string file, data, out, explain;
  int workers = 0;
  uint64_t seed = 0;
  bool dry_run = false;
};

// A command of `quern data`; null where there is none.
const CLI::App* stage_of(const CLI::App& data, const std::string& name) {
  for (const CLI::App* command : commands_of(data)) {
    if (command->get_name() == name) return command;
  }
  return nullptr;
}

bool has_option(const CLI::App& command, const std::string& name) {
  return command.get_option_no_throw("--" + name) != nullptr;
}

class Chain {
 public:
  Chain(const Arguments& args, const CLI::App& data) : args_(args), data_(data) {
    file_ = PipelineFile::load(args.file, args.data, args.out);
    for (const PipelineStage& stage : file_.stages) check(stage);
  }

  void run() {
    for (const PipelineStage& stage : file_.stages) {
      const std::vector<std::string> words = command_of(stage);
      print(fmt::format("{}: quern {}\n", stage.name, fmt::join(words, " ")));
      if (args_.dry_run) continue;
      if (!is_done(stage)) run_stage(stage, words);
    }
    if (args_.dry_run) return;
    const fs::path report = fs::path(args_.out) / "report.html";
    write_file(report, pipeline_report(folders(), args_.seed));
    print(fmt::format("what was kept and dropped: {}\n", report.string()));
  }

  void explain(const std::string& id) const { print(explain_document(folders(), id)); }

 private:
  std::string out_of(const PipelineStage& stage) const {
    return (fs::path(args_.out) / stage.name).string();
  }

  std::vector<StageFolder> folders() const {
    std::vector<StageFolder> all;
    for (const PipelineStage& stage : file_.stages) all.push_back({stage.name, out_of(stage)});
    return all;
  }

  void check(const PipelineStage& stage) const {
    std::vector<std::string> known;
    for (const CLI::App* command : commands_of(data_)) {
      const std::string name = command->get_name();
      if (name != "run" && has_option(*command, "out")) known.push_back(name);
    }
    if (std::ranges::find(known, stage.use) == known.end()) {
      const std::string near = nearest(stage.use, known);
      throw_bad_input(fmt::format("{}: stage {}: there is no stage '{}'", args_.file, stage.name,
                                  printable(stage.use, 60)),
                      near.empty() ? fmt::format("known are {}", fmt::join(known, ", "))
                                   : fmt::format("did you mean '{}'?", near));
    }
    const CLI::App& command = *stage_of(data_, stage.use);
    if (!stage.sources.empty() && stage.use != "mix") {
      throw_bad_input(fmt::format("{}: stage {}: [[stage.source]] goes with use = \"mix\"",
                                  args_.file, stage.name));
    }
    for (const auto& [key, value] : stage.settings) {
      if (has_option(command, key) || has_option(command, "set")) continue;
      throw_bad_input(fmt::format("{}: stage {}: {} has no setting '{}'", args_.file, stage.name,
                                  stage.use, printable(key, 60)));
    }
  }

  std::vector<std::string> command_of(const PipelineStage& stage) const {
    const CLI::App& command = *stage_of(data_, stage.use);
    std::vector<std::string> words = {"data", stage.use};
    if (stage.sources.empty()) {
      for (const std::string& input : stage.inputs) add_input(command, input, words);
    } else {
      words.push_back(sources_file(stage).string());
    }
    words.insert(words.end(), {"--out", out_of(stage)});
    for (const auto& [key, value] : stage.settings) {
      if (in_mix_file(stage, key)) continue;
      if (!has_option(command, key)) {
        words.insert(words.end(), {"--set", key + "=" + value});
      } else if (command.get_option("--" + key)->get_expected_max() == 0) {
        if (value == "on") words.push_back("--" + key);
      } else {
        words.insert(words.end(), {"--" + key, value});
      }
    }
    if (args_.workers > 0 && has_option(command, "workers")) {
      words.insert(words.end(), {"--workers", fmt::format("{}", args_.workers)});
    }
    return words;
  }

  // What has no frame of stages reads files, not folders.
  void add_input(const CLI::App& command, const std::string& input,
                 std::vector<std::string>& words) const {
    if (has_option(command, "workers") || args_.dry_run || !fs::is_directory(input)) {
      words.push_back(input);
      return;
    }
    for (const fs::path& file : expand_inputs({input})) words.push_back(file.string());
  }

  fs::path sources_file(const PipelineStage& stage) const {
    return fs::path(args_.out) / ".run" / (stage.name + ".toml");
  }
  fs::path done_file(const PipelineStage& stage) const {
    return fs::path(args_.out) / ".run" / (stage.name + ".done");
  }

  // Of a stage without a manifest of the frame: what it was made of. Others look for themselves.
  std::string made_of(const PipelineStage& stage) const {
    std::string out;
    for (const std::string& word : command_of(stage)) out += word + "\n";
    for (const std::string& need : stage.needs) {
      const fs::path manifest = fs::path(args_.out) / need / "manifest.json";
      if (fs::exists(manifest)) out += sha256_file(manifest) + "\n";
    }
    return out;
  }
  bool is_done(const PipelineStage& stage) const {
    if (has_option(*stage_of(data_, stage.use), "workers")) return false;
    if (!fs::exists(done_file(stage))) return false;
    if (read_file(done_file(stage)) == made_of(stage)) return true;
    throw Error(Kind::Misused, out_of(stage) + ": was made of other inputs or settings",
                "choose another --out, or remove the folder");
  }

  void run_stage(const PipelineStage& stage, const std::vector<std::string>& words) const {
    fs::create_directories(fs::path(args_.out) / ".run");
    if (!stage.sources.empty()) write_file(sources_file(stage), mix_file(stage));
    std::fflush(stdout);
    // The child shows its own progress and gets the terminal's Ctrl-C itself.
    std::vector<std::string> all = {"quern"};
    all.insert(all.end(), words.begin(), words.end());
    if (globals().quiet) all.push_back("--quiet");
    std::vector<char*> argv;
    for (std::string& word : all) argv.push_back(word.data());
    argv.push_back(nullptr);
    const auto before = ::signal(SIGINT, SIG_IGN);
    pid_t child = 0;
    posix_spawnattr_t attributes;
    ::posix_spawnattr_init(&attributes);
    sigset_t usual;
    ::sigemptyset(&usual);
    ::sigaddset(&usual, SIGINT);
    ::posix_spawnattr_setsigdefault(&attributes, &usual);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    const int failure =
        ::posix_spawn(&child, "/proc/self/exe", nullptr, &attributes, argv.data(), environ);
    ::posix_spawnattr_destroy(&attributes);
    if (failure != 0) {
      ::signal(SIGINT, before);
      throw Error(Kind::Failed, fmt::format("cannot start a stage: {}", std::strerror(failure)));
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    ::signal(SIGINT, before);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
      if (!has_option(*stage_of(data_, stage.use), "workers")) {
        write_file(done_file(stage), made_of(stage));
      }
      return;
    }
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    const Kind kind = code == 2   ? Kind::Misused
                      : code == 3 ? Kind::BadInput
                      : code == 4 ? Kind::NoResources
                      : code == 5 ? Kind::Unsupported
                      : code == 6 ? Kind::Partial
                                  : Kind::Failed;
    throw Error(kind, fmt::format("the stage {} ended early", stage.name),
                kind == Kind::Partial ? "the same command goes on" : "its line above says why");
  }

  // Of a mix's settings, those that stand in its file.
  static bool in_mix_file(const PipelineStage& stage, const std::string& key) {
    return !stage.sources.empty() && (key == "seed" || key == "total" || key == "shard_mb");
  }
  static std::string mix_file(const PipelineStage& stage) {
    std::string out;
    for (const auto& [key, value] : stage.settings) {
      if (in_mix_file(stage, key)) out += key + " = " + value + "\n";
    }
    return out + stage.sources;
  }

  const Arguments& args_;
  const CLI::App& data_;
  PipelineFile file_;
};

}  // namespace

void add_data_run(CLI::App& data) {
  auto args = std::make_shared<Arguments>();
  Command command(data, "run", "Run a chain of stages that a file names, and report on it",
                  {{"data run pipeline.toml --out made",
                    "every stage that is not done yet, then made/report.html"},
                   {"data run pipeline.toml --out yesterday --explain page-17",
                    "one document's way through all rules"}});
  command.positional("file", args->file, "The chain: docs/data.md describes it").required();
  command.option("--out", args->out, "Folder in which each stage has one").required().folder();
  command.option("--data", args->data, "Folder of files that it names", "beside the file").folder();
  command.option("--workers", args->workers, "Threads of each stage", "one per core");
  command.option("--seed", args->seed, "Random seed of the report's samples");
  command.option("--explain", args->explain, "Print what was done with the document of this id")
      .value("ID");
  command.flag("--dry-run", args->dry_run, "Check the file and print the commands");
  command.refuse({"--dry-run", "--workers", "--seed"}, "and --explain exclude each other",
                 [args] { return !args->explain.empty(); });
  command.on_run([args, &data] {
    if (launcher().rank > 0) {
      log::info("data run: the first process works alone; single stages are shared");
      return;
    }
    Chain chain(*args, data);
    if (args->explain.empty()) {
      chain.run();
    } else {
      chain.explain(args->explain);
    }
  });
}

}  // namespace quern::cli
