// quern pretrain: a training run from its TOML file.
#include "train/pretrain.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/training_report.h"
#include "compute/cpu/cpu_training_backend.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "formats/generation_config.h"
#include "text/load.h"
#include "train/run_data.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::string file, out;
  std::vector<std::string> set;
  bool resume = false, dry_run = false;
};

Precision precision_of(const RunConfig& config) {
  if (config.precision == "fp32") return Precision::F32;
  if (CpuTrainingBackend::supports(Precision::BF16)) return Precision::BF16;
  if (config.precision == "auto") return Precision::F32;
  throw Error(Kind::Unsupported, "train.precision is bf16, which this CPU has no products for",
              "set it to auto or fp32");
}

void describe(const RunConfig& config, CpuTrainingBackend& backend, Precision precision) {
  const RunEstimate sum = estimate(config, backend);
  const ParameterCount count = count_parameters(config.model);
  print(fmt::format("model       {} layers, {} hidden, {} parameters ({} without the embedding)\n",
                    config.model.layers, config.model.hidden,
                    human_count(static_cast<uint64_t>(count.total)),
                    human_count(static_cast<uint64_t>(count.total - count.embedding))));
  print(fmt::format("precision   {} products, float32 parameters and sums\n",
                    precision == Precision::BF16 ? "bf16" : "fp32"));
  print(fmt::format("memory      {} in all\n", human_bytes(sum.total_bytes())));
  const std::pair<const char*, uint64_t> parts[] = {{"parameters", sum.parameters},
                                                    {"gradients", sum.gradients},
                                                    {"moments", sum.moments},
                                                    {"activations", sum.activations},
                                                    {"checkpoint", sum.checkpoint_copies}};
  for (const auto& [name, bytes] : parts) {
    print(fmt::format("            {:<12} {:>8}\n", name, human_bytes(bytes)));
  }
  if (sum.total_bytes() > available_memory()) {
    print(fmt::format("            more than the {} that this machine can give\n",
                      human_bytes(available_memory())));
  }
  print(fmt::format("tokens      {}: {} steps of {} x {}\n",
                    human_count(static_cast<uint64_t>(sum.tokens)), config.steps, config.batch,
                    config.seq));
  const double peak = backend.measured_peak();
  const double seconds = sum.tokens * sum.flops_per_token / peak;
  print(fmt::format("time        {} at half of the measured {:.0f} GFLOP/s, {} at best\n",
                    human_seconds(2 * seconds), peak * 1e-9, human_seconds(seconds)));
}

void pretrain(const Arguments& args) {
  const fs::path file(args.file);
  const RunConfig config = load_run_config(file, args.set);
  const Precision precision = precision_of(config);
  ThreadPool pool(globals().threads);
  CpuTrainingBackend backend(pool, cpu::chosen_isa(), precision);
  if (args.dry_run) return describe(config, backend, precision);

  const fs::path out = args.out.empty() ? fs::path("runs") / file.stem() : fs::path(args.out);
  if (const uint64_t needed = estimate(config, backend).total_bytes();
      needed > available_memory()) {
    throw Error(Kind::NoResources,
                fmt::format("the run needs {} of memory, this machine can give {}",
                            human_bytes(needed), human_bytes(available_memory())),
                "take a smaller train.micro_batch, train.recompute_layers, or a smaller model; "
                "--dry-run shows what takes how much");
  }
  fs::create_directories(out);
  const RunLock lock(out);
  const bool begun = !checkpoint_steps(out).empty();
  if (begun && !args.resume) {
    throw Error(Kind::Misused, out.string() + ": holds a run already",
                "go on with --resume, or name another --out");
  }
  if (args.resume && !begun) log::info(out.string() + ": no checkpoint yet, the run begins anew");

  const auto tokenizer = load_tokenizer(config.tokenizer);
  const InterruptScope scope;  // Ctrl-C: finish the step, save, end
  const RunData data = open_run_data(config, *tokenizer, out, pool, [](const std::string& name) {
    check_interrupted();
    log::debug("packing " + name);
  });
  std::vector<const Dataset*> train, valid;
  for (const auto& one : data.train) train.push_back(one.get());
  for (const auto& one : data.valid) valid.push_back(one.get());

  TrainingReport report(config, *tokenizer, backend, out);
  Pretraining run(backend, config, train, valid, report);
  const bool done = run.run(out, begun, [&](const fs::path& folder) {
    copy_tokenizer(config.tokenizer, folder);
    write_file(
        folder / "generation_config.json",
        dump(new_generation_config(tokenizer->eos(), tokenizer->special("<|im_end|>")), 2) + "\n");
  });
  report.finish(done);
  if (!done) {
    throw Error(Kind::Interrupted, out.string() + ": stopped, and saved where it stands",
                "go on with --resume");
  }
}

}  // namespace

void add_pretrain(CLI::App& root) {
  Command command(
      root, "pretrain", "Train a model as a TOML file says",
      {{"pretrain recipes/mini/tiny.toml", "a toy, in under three minutes"},
       {"pretrain run.toml --set train.steps=2000 --set optimizer.learning_rate=1e-3",
        "other settings than the file's"},
       {"pretrain run.toml --resume", "go on where an interrupted run stood, to the same bytes"},
       {"pretrain run.toml --dry-run", "parameters, memory, tokens and time"}});
  auto args = std::make_shared<Arguments>();
  command.positional("file", args->file, "The run's TOML file").required();
  command.option("--out", args->out, "The run's folder", "runs/ and the file's name");
  command.option("--set", args->set, "KEY=VALUE: a setting instead of the file's");
  command.flag("--resume", args->resume, "Go on from the newest checkpoint in the run's folder");
  command.flag("--dry-run", args->dry_run, "Say what the run would take, and end");
  command.on_run([args] { pretrain(*args); });
}

}  // namespace quern::cli
