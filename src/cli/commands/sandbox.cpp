// quern sandbox: runs a command that nobody trusts and says how it ended.
#include "sandbox/sandbox.h"

#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "cli/framework/command.h"
#include "core/error.h"
#include "core/json.h"

namespace quern::cli {
namespace {

struct Arguments {
  SandboxLimits limits;
  double memory_mb = 512;
  std::vector<std::string> readable, command;
  bool unsafe = false, json = false;
};

void run(const Arguments& args) {
  SandboxLimits limits = args.limits;
  limits.memory_bytes = static_cast<int64_t>(args.memory_mb * 1024 * 1024);
  SandboxOptions options;
  options.readable.assign(args.readable.begin(), args.readable.end());
  options.unsafe = args.unsafe;
  const SandboxOutcome outcome = run_sandboxed(args.command, limits, options);
  if (args.json) {
    nlohmann::ordered_json out;
    out["exit"] = outcome.exit >= 0 ? nlohmann::ordered_json(outcome.exit) : nullptr;
    out["signal"] = outcome.signal > 0 ? nlohmann::ordered_json(outcome.signal) : nullptr;
    out["timed_out"] = outcome.timed_out;
    out["out_of_memory"] = outcome.out_of_memory;
    out["stdout"] = outcome.out;
    out["stderr"] = outcome.err;
    out["truncated"] = outcome.truncated;
    out["cpu_seconds"] = outcome.cpu_seconds;
    out["seconds"] = outcome.seconds;
    if (args.unsafe) out["unsafe_no_sandbox"] = true;
    print(dump(out) + "\n");
    return;
  }
  print(outcome.out);
  flush_output();
  std::string verdict = outcome.exit >= 0 ? fmt::format("exit {}", outcome.exit)
                                          : fmt::format("signal {}", outcome.signal);
  if (outcome.timed_out) verdict += ", out of time";
  if (outcome.out_of_memory) verdict += ", out of memory";
  if (outcome.truncated) verdict += ", output cut";
  fmt::print(stderr, "{}{}; {:.2f} s, {:.2f} s of CPU\n", outcome.err, verdict, outcome.seconds,
             outcome.cpu_seconds);
}

}  // namespace

void add_sandbox(CLI::App& root) {
  Command command(root, "sandbox", "Run a command without network, files or time to do harm",
                  {{"sandbox --cpu 3 --json -- python3 -c 'print(6 * 7)'",
                    "its output, how it ended and what it used"}});
  auto args = std::make_shared<Arguments>();
  command.positional("command", args->command, "The command and its arguments, behind --")
      .required();
  command.option("--cpu", args->limits.cpu_seconds, "Seconds of CPU, all its processes together")
      .range(0.1, 86400.0);
  command.option("--wall", args->limits.wall_seconds, "Seconds on the clock").range(0.1, 86400.0);
  command.option("--memory", args->memory_mb, "Megabytes (2^20 bytes) of memory")
      .range(1.0, 1048576.0);
  command.option("--processes", args->limits.processes, "Processes and threads at once")
      .range(int64_t{1}, int64_t{4096});
  command.option("--readable", args->readable, "A folder beside /usr that it may read");
  command.flag("--unsafe-no-sandbox", args->unsafe,
               "Only limits, no namespaces and no filter: for code you would run yourself");
  command.flag("--json", args->json, "Print one JSON object");
  command.on_run([args] { run(*args); });
}

}  // namespace quern::cli
