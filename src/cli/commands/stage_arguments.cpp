#include "cli/commands/stage_arguments.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "core/launcher.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/thread_pool.h"

namespace quern::cli {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void report(const StageArguments& args, const StageReport& counts, double seconds,
            const StageFacts& facts) {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  const double speed = seconds > 0 ? static_cast<double>(counts.line_bytes) / 1e6 / seconds : 0;
  if (args.json) {
    nlohmann::ordered_json out;
    out["counts"] = {{"in", counts.in}, {"out", counts.out}, {"bad", counts.bad}};
    out["counts"]["dropped"] = nlohmann::ordered_json::object();
    for (const auto& [rule, count] : counts.dropped) out["counts"]["dropped"][rule] = count;
    facts.json(out);
    out["seconds"] = seconds;
    out["mb_per_s"] = speed;
    out["peak_memory_mb"] = static_cast<double>(usage.ru_maxrss) / 1000;
    print(dump(out) + "\n");
    return;
  }
  if (counts.already_done) {
    print(fmt::format("{} is whole already: nothing was done again\n", args.out));
  }
  // A mixture holds documents more than once.
  print(counts.out > counts.in
            ? fmt::format("{}: {} documents out of {}", args.out, counts.out, counts.in)
            : fmt::format("{}: {} of {} documents kept", args.out, counts.out, counts.in));
  if (!counts.already_done) print(fmt::format(", {:.1f} MB per second", speed));
  print("\n");
  for (const auto& [rule, count] : counts.dropped) {
    print(fmt::format("  {:<44}{:>10}\n", rule, count));
  }
  if (counts.bad > 0) {
    print(fmt::format("  {:<44}{:>10}\n", "bad records (in bad/)", counts.bad));
    if (!counts.first_bad.empty()) print("  the first: " + counts.first_bad + "\n");
  }
  print(facts.lines);
}

}  // namespace

void StageArguments::declare(Command& command, const std::string& input_help, Out output) {
  command.positional("input", inputs, input_help).required();
  const Option folder = command.option("--out", out, "Folder to make").folder();
  if (output == Out::Required) folder.required();
  command.option("--set", settings, "A setting of the stage; may be repeated").value("KEY=VALUE");
  command.option("--workers", workers, "Threads that work on records", "one per core");
  command.flag("--strict", strict, "Stop at the first bad record instead of counting it");
  if (ranks == Ranks::Share) {
    command.flag(
        "--share", share,
        "Share the inputs with other processes of the same command; under mpirun, srun and in "
        "Slurm arrays they do without");
  }
  command.flag("--json", json, "Print counts, seconds, MB per second and peak memory as JSON");
}

StageOptions StageArguments::options(std::vector<fs::path> files) const {
  StageOptions options;
  options.inputs = std::move(files);
  options.out = out;
  options.workers = workers > 0 ? workers : ThreadPool::available_cores();
  options.strict = strict;
  options.shared = ranks == Ranks::Share && (share || launcher().size > 1);
  options.cancel = &interrupted;
  return options;
}

void run_stage_command(const StageArguments& args, const std::string& title, const StageWork& work,
                       const std::function<StageFacts()>& facts) {
  run_stage_command(args, args.options(expand_inputs(args.inputs)), title, work, facts);
}

void run_stage_command(const StageArguments& args, StageOptions options, const std::string& title,
                       const StageWork& work, const std::function<StageFacts()>& facts) {
  if (args.ranks == StageArguments::Ranks::FirstAlone && launcher().rank > 0) {
    log::info(
        fmt::format("{} judges all documents together: the first process works alone", title));
    return;
  }
  uint64_t bytes = 0;
  for (const fs::path& input : options.inputs) bytes += input_bytes(input);
  const InterruptScope scope;
  Progress progress(title, bytes, "bytes");
  options.on_progress = [&](uint64_t done) { progress.update(done); };
  const auto start = std::chrono::steady_clock::now();
  const StageReport counts = work(options);
  const double seconds = seconds_since(start);
  progress.finish();
  if (counts.left_to_others) {
    log::info(fmt::format("{}: other processes are still at work; the last one writes the manifest",
                          args.out));
    return;
  }
  report(args, counts, seconds, facts ? facts() : StageFacts());
}

}  // namespace quern::cli
