#include "cli/commands/training_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/checkpoint_files.h"
#include "cli/commands/model_store.h"
#include "cli/commands/training_report.h"
#include "compute/cpu/cpu_training_backend.h"
#include "core/error.h"
#include "core/launcher.h"
#include "core/log.h"
#include "core/progress.h"
#include "formats/generation_config.h"
#include "formats/gguf.h"
#include "text/chat_template.h"
#include "text/load.h"
#include "train/communicator.h"
#include "train/pretrain.h"
#include "train/run_data.h"

namespace quern::cli {
namespace {

Precision precision_of(const RunConfig& config) {
  if (config.precision == "fp32") return Precision::F32;
  if (CpuTrainingBackend::supports(Precision::BF16)) return Precision::BF16;
  if (config.precision == "auto") return Precision::F32;
  throw Error(Kind::Unsupported, "train.precision is bf16, which this CPU has no products for",
              "set it to auto or fp32");
}

// What a run would stop at later: its tokenizer, and every source of its data.
void check_inputs(const RunConfig& config) {
  const auto tokenizer = load_tokenizer(config.tokenizer);
  for (const std::vector<RunSource>* sources : {&config.train, &config.valid}) {
    for (const RunSource& source : *sources) check_run_source(source, *tokenizer);
  }
  if (tokenizer->size() > config.model.vocab) {
    throw_bad_input(fmt::format("{}: has {} tokens, the model {} rows of embedding",
                                config.tokenizer.string(), tokenizer->size(), config.model.vocab),
                    "take a model with a larger vocabulary");
  }
}

void describe(const RunConfig& config, CpuTrainingBackend& backend, Precision precision,
              bool json) {
  const RunEstimate sum = estimate(config, backend);
  const ParameterCount count = count_parameters(config.model);
  if (json) {
    const double peak = backend.measured_peak();
    print(
        dump(nlohmann::ordered_json{{"parameters", count.total},
                                    {"trained_parameters", sum.trained},
                                    {"precision", precision == Precision::BF16 ? "bf16" : "fp32"},
                                    {"memory_bytes",
                                     {{"total", sum.total_bytes()},
                                      {"frozen", sum.frozen},
                                      {"parameters", sum.parameters},
                                      {"gradients", sum.gradients},
                                      {"moments", sum.moments},
                                      {"activations", sum.activations},
                                      {"checkpoint", sum.checkpoint_copies}}},
                                    {"memory_available_bytes", available_memory()},
                                    {"tokens", static_cast<int64_t>(sum.tokens)},
                                    {"steps", config.steps},
                                    {"flops_per_token", sum.flops_per_token},
                                    {"seconds_at_peak", sum.tokens * sum.flops_per_token / peak}}) +
        "\n");
    return;
  }
  print(fmt::format("model       {} layers, {} hidden, {} parameters ({} without the embedding)\n",
                    config.model.layers, config.model.hidden,
                    human_count(static_cast<uint64_t>(count.total)),
                    human_count(static_cast<uint64_t>(count.total - count.embedding))));
  print(fmt::format("precision   {} products, float32 parameters and sums\n",
                    precision == Precision::BF16 ? "bf16" : "fp32"));
  if (config.tune) {
    print(fmt::format("trained     {} parameters, {:.2f} % of the model's\n",
                      human_count(sum.trained),
                      100 * static_cast<double>(sum.trained) / static_cast<double>(count.total)));
  }
  print(fmt::format("memory      {} in all\n", human_bytes(sum.total_bytes())));
  const std::pair<const char*, uint64_t> parts[] = {
      {"frozen", sum.frozen},           {"parameters", sum.parameters},
      {"gradients", sum.gradients},     {"moments", sum.moments},
      {"activations", sum.activations}, {"checkpoint", sum.checkpoint_copies}};
  for (const auto& [name, bytes] : parts) {
    if (bytes == 0) continue;
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

// Tokenizer, chat template and generation settings of a run's checkpoints.
void write_side_files(const RunConfig& config, const Tokenizer& tokenizer, const fs::path& folder) {
  if (is_gguf(config.tokenizer)) {
    write_gguf_tokenizer(config.tokenizer, folder);
  } else {
    copy_tokenizer(config.tokenizer, folder);
  }
  save_release_template(tokenizer, folder);
  const fs::path given = config.init_from / "generation_config.json";
  if (config.tune && fs::is_regular_file(given)) {
    write_file(folder / "generation_config.json", read_file(given));
    return;
  }
  nlohmann::ordered_json generation =
      new_generation_config(tokenizer.eos(), tokenizer.special("<|im_end|>"));
  if (config.tune) generation.update(to_json(read_generation_config(config.init_from)));
  write_file(folder / "generation_config.json", dump(generation, 2) + "\n");
}

// What all ranks must have in common, as hashes: what they are called by, and the rank's own.
struct Likeness {
  const char* what;
  std::string hash;
};

// Throws Misused naming the first rank that differs and in what; on every rank.
void check_alike(Communicator& ranks, const std::vector<Likeness>& all) {
  std::string mine;
  for (const Likeness& one : all) mine += sha256(one.hash);
  const auto bytes = ranks.all_gather(std::as_bytes(std::span(mine)));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (int rank = 1; rank < ranks.size(); ++rank) {
    const std::string_view theirs =
        text.substr(static_cast<size_t>(rank) * mine.size(), mine.size());
    for (size_t i = 0; i < all.size(); ++i) {
      const size_t size = mine.size() / all.size();
      if (theirs.substr(i * size, size) == text.substr(i * size, size)) continue;
      if (!ranks.first()) throw Error(Kind::Misused, "the ranks do not fit together");
      throw Error(Kind::Misused,
                  fmt::format("rank {} has another {} than rank 0", rank, all[i].what),
                  "all ranks need the same");
    }
  }
}

// Of the ranks behind the first: they compute and say nothing.
class SilentRank final : public RunObserver {
 public:
  bool wants_stop() override { return interrupted; }
};

void train(const TrainingArguments& args, RunKind kind, Communicator& ranks);

}  // namespace

void run_training(const TrainingArguments& args, RunKind kind) {
  const std::unique_ptr<Communicator> ranks = args.dry_run ? make_alone() : make_communicator();
  if (ranks->alone()) return train(args, kind, *ranks);
  try {
    train(args, kind, *ranks);
  } catch (const Error& error) {
    // The launcher's own words about an exit code say less.
    fmt::print(stderr, "quern: rank {}: {}\n", ranks->rank(), error.line());
    std::fflush(stderr);
    ranks->abort(error.exit_code());
    throw;
  }
}

namespace {

void train(const TrainingArguments& args, RunKind kind, Communicator& ranks) {
  const fs::path file(args.file);
  const bool tunes = kind == RunKind::Finetune;
  const RunConfig config = load_run_config(file, args.set, kind, tunes ? resolve_model : nullptr);
  const Precision precision = precision_of(config);
  ThreadPool pool(threads_of_process(globals().threads));
  CpuTrainingBackend backend(pool, cpu::chosen_isa(), precision);
  if (args.dry_run) {
    check_inputs(config);
    return describe(config, backend, precision, args.json);
  }

  const fs::path out = args.out.empty() ? fs::path("runs") / file.stem() : fs::path(args.out);
  if (const uint64_t needed = estimate(config, backend).total_bytes();
      needed > available_memory()) {
    throw Error(Kind::NoResources,
                fmt::format("the run needs {} of memory, this machine can give {}",
                            human_bytes(needed), human_bytes(available_memory())),
                fmt::format("take {}train.recompute_layers, or a smaller model; --dry-run shows "
                            "what takes how much",
                            tunes ? "a smaller data.seq, " : "a smaller train.micro_batch, "));
  }
  if (args.resume && !fs::exists(out)) {
    throw_bad_input(out.string() + ": holds no run to resume",
                    "leave --resume out to begin one, or name its folder with --out");
  }
  fs::create_directories(out);
  std::optional<RunLock> lock;
  if (ranks.first()) lock.emplace(out);
  const bool begun = !checkpoint_steps(out).empty();
  if (!ranks.alone()) {
    check_alike(ranks,
                {{"run file", config.merged.raw().dump()},
                 {"version of the program", QUERN_VERSION},
                 {"instruction set", std::string(name(cpu::chosen_isa()))},
                 {"precision", precision == Precision::BF16 ? "bf16" : "fp32"},
                 {"folder", fmt::format("{} {}", out.string(), checkpoint_steps(out).size())}});
  }
  if (begun && !args.resume) {
    throw Error(Kind::Misused, out.string() + ": holds a run already",
                "go on with --resume, or name another --out");
  }
  if (args.resume && !begun && ranks.first()) {
    log::warning(out.string() + ": has no checkpoint yet, the run starts at step 0");
  }

  const auto tokenizer = load_tokenizer(config.tokenizer);
  const InterruptScope scope;  // Ctrl-C: finish the step, save, end
  const auto open_data = [&] {
    return open_run_data(config, *tokenizer, out, pool, [](const std::string& name) {
      check_interrupted();
      log::debug("packing " + name);
    });
  };
  // The first rank packs documents, the others read what it packed.
  std::optional<RunData> opened;
  ranks.set_stage("the packing of data");
  ranks.set_patience(86400);
  if (ranks.first()) opened = open_data();
  ranks.barrier();
  if (!ranks.first()) opened = open_data();
  ranks.set_patience(config.rank_seconds);
  const RunData& data = *opened;
  if (ranks.first()) {
    for (const std::string& note : data.notes) log::warning(note);
  }
  if (!ranks.alone()) {
    std::string manifests;
    for (const auto* group : {&data.train, &data.valid}) {
      for (const auto& one : *group) {
        const DatasetManifest& manifest = one->manifest();
        manifests += fmt::format("{} {} {} {};", manifest.name, manifest.tokenizer_hash,
                                 manifest.tokens, manifest.documents);
      }
    }
    check_alike(ranks, {{"data", manifests}});
  }
  std::vector<const Dataset*> train, valid;
  for (const auto& one : data.train) train.push_back(one.get());
  for (const auto& one : data.valid) valid.push_back(one.get());

  if (begun && checkpoint_steps(out).back() >= config.steps) {
    if (!ranks.first()) return;
    print(
        fmt::format("{}: has finished, all {} steps are done\ntry: quern {} {} --out {} "
                    "--resume --set train.steps={}\n",
                    out.string(), config.steps, tunes ? "finetune" : "pretrain", args.file,
                    out.string(), 2 * config.steps));
    return;
  }
  SilentRank silent;
  std::optional<TrainingReport> report;
  if (ranks.first()) report.emplace(config, *tokenizer, backend, out);
  RunObserver& observer = report ? static_cast<RunObserver&>(*report) : silent;
  Pretraining run(backend, config, train, valid, observer, &pool, &ranks);
  const bool done = run.run(
      out, begun, [&](const fs::path& folder) { write_side_files(config, *tokenizer, folder); });
  if (!report) return;
  report->finish(done);
  const std::string latest = (out / "latest").string();
  if (!done) {
    throw Error(Kind::Interrupted, out.string() + ": stopped, and saved where it stands",
                "go on with --resume");
  }
  const std::string model = config.tune && config.tune->lora()
                                ? config.init_from.string() + " --adapter " + latest
                                : latest;
  print(fmt::format("saved {}; try: quern {}\n", latest,
                    tunes ? "chat " + model : "generate " + model + " \"...\""));
}

}  // namespace

void add_training_options(Command& command, RunKind kind) {
  auto args = std::make_shared<TrainingArguments>();
  command.positional("file", args->file, "TOML file of the run").required();
  command.option("--out", args->out, "Folder of the run", "runs/ and the file's name").folder();
  command.option("--set", args->set, "Override a setting of the file; repeatable")
      .value("KEY=VALUE");
  command.flag("--resume", args->resume, "Continue from the newest checkpoint in the run's folder");
  command.flag("--dry-run", args->dry_run,
               "Check tokenizer and data, print memory and time needed, and end");
  command.flag("--json", args->json, "Print --dry-run's result as one JSON object");
  command.explain_unknown([](const std::string& name, const std::string& value) -> std::string {
    std::string key = name;
    std::replace(key.begin(), key.end(), '-', '_');
    for (const std::string& known : run_config_keys()) {
      if (known.substr(known.find('.') + 1) != key) continue;
      return fmt::format("use --set {}={}", known, value.empty() ? "VALUE" : value);
    }
    return "";
  });
  command.on_run([args, kind] { run_training(*args, kind); });
}

}  // namespace quern::cli
