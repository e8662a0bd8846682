// quern data extract, filter, dedup: stages of the data pipeline.
#include "cli/commands/data_stages.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"
#include "core/thread_pool.h"
#include "data/stages/dedup.h"
#include "data/stages/extract.h"
#include "data/stages/filter.h"

namespace quern::cli {
namespace {

// What every stage takes.
struct StageArguments {
  std::vector<std::string> inputs, settings;
  std::string out;
  int workers = 0;
  bool json = false, strict = false;

  void declare(Command& command) {
    command.positional("input", inputs, "Record files, folders of them, or patterns").required();
    command.option("--out", out, "Folder to make").required();
    command.option("--set", settings, "KEY=VALUE: a setting of the stage; may be repeated");
    command.option("--workers", workers, "Threads that work on records; 0 = as --threads says")
        .range(0, 1024);
    command.flag("--strict", strict, "Stop at the first bad record instead of counting it");
    command.flag("--json", json, "Print counts, seconds, MB per second and peak memory as JSON");
  }
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void report(const StageArguments& args, const StageReport& counts, double seconds) {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  const double speed = seconds > 0 ? static_cast<double>(counts.line_bytes) / 1e6 / seconds : 0;
  if (args.json) {
    nlohmann::ordered_json out;
    out["counts"] = {{"in", counts.in}, {"out", counts.out}, {"bad", counts.bad}};
    out["counts"]["dropped"] = nlohmann::ordered_json::object();
    for (const auto& [rule, count] : counts.dropped) out["counts"]["dropped"][rule] = count;
    out["seconds"] = seconds;
    out["mb_per_s"] = speed;
    out["peak_memory_mb"] = static_cast<double>(usage.ru_maxrss) / 1000;
    print(dump(out) + "\n");
    return;
  }
  if (counts.already_done) {
    print(fmt::format("{} is whole already: nothing was done again\n", args.out));
  }
  print(fmt::format("{}: {} of {} documents kept", args.out, counts.out, counts.in));
  if (!counts.already_done) print(fmt::format(", {:.1f} MB per second", speed));
  print("\n");
  for (const auto& [rule, count] : counts.dropped) {
    print(fmt::format("  {:<44}{:>10}\n", rule, count));
  }
  if (counts.bad > 0) {
    print(fmt::format("  {:<44}{:>10}\n", "bad records (in bad/)", counts.bad));
    if (!counts.first_bad.empty()) print("  the first: " + counts.first_bad + "\n");
  }
}

using Work = std::function<StageReport(StageOptions&)>;

void run(const StageArguments& args, const std::string& title, const Work& work) {
  StageOptions options;
  options.inputs = expand_inputs(args.inputs);
  options.out = args.out;
  options.workers = args.workers > 0        ? args.workers
                    : globals().threads > 0 ? globals().threads
                                            : ThreadPool::available_cores();
  options.strict = args.strict;
  options.cancel = &interrupted;
  uint64_t bytes = 0;
  for (const fs::path& input : options.inputs) bytes += fs::file_size(input);
  const InterruptScope scope;
  Progress progress(title, bytes, "bytes");
  options.on_progress = [&](uint64_t done) { progress.update(done); };
  const auto start = std::chrono::steady_clock::now();
  const StageReport counts = work(options);
  const double seconds = seconds_since(start);
  progress.finish();
  report(args, counts, seconds);
}

void add_extract(CLI::App& data) {
  auto args = std::make_shared<StageArguments>();
  auto html_field = std::make_shared<std::string>();
  Command command(data, "extract", "Read the main text out of web pages, web archives and files",
                  {{"data extract pages.jsonl.gz crawl.warc.gz --out texts",
                    "a document per page, with title, date, url and declared language"}});
  args->declare(command);
  command.option("--html-field", *html_field,
                 "Field that holds a page; bytes in base64 where its name ends in _base64",
                 "html, html_base64");
  command.on_run([args, html_field] {
    StageSettings settings(args->settings);
    const auto stage = make_extract_stage(settings, *html_field);
    run(*args, "extract", [&](StageOptions& options) { return run_stage(*stage, options); });
  });
}

void add_filter(CLI::App& data) {
  auto args = std::make_shared<StageArguments>();
  Command command(data, "filter",
                  "Drop documents that published rules call bad, mask personal data",
                  {{"data filter all.jsonl.zst --out clean --set rules=gopher,pii",
                    "the kept documents in clean/, the dropped ones under clean/dropped/<rule>/"}});
  args->declare(command);
  command.on_run([args] {
    StageSettings settings(args->settings);
    const auto stage = make_filter_stage(settings);
    run(*args, "filter", [&](StageOptions& options) { return run_stage(*stage, options); });
  });
}

struct DedupArguments {
  StageArguments stage;
  std::string method = "minhash", verify = "0.8", within, clusters;
};

DedupOptions dedup_options(const DedupArguments& args) {
  DedupOptions options;
  options.method = args.method == "exact"       ? DedupOptions::Method::Exact
                   : args.method == "paragraph" ? DedupOptions::Method::Paragraph
                                                : DedupOptions::Method::MinHash;
  StageSettings verify({"verify=" + args.verify});
  if (args.verify == "off") {
    options.verify.reset();
  } else {
    options.verify = verify.number("verify", 0.8, 0, 1);
  }
  options.within = args.within;
  options.clusters = args.clusters;
  // What a method has no use for stays untaken, and finish() refuses it by name.
  StageSettings settings(args.stage.settings);
  if (options.method != DedupOptions::Method::Paragraph) {
    options.score = settings.text("score", "");
  }
  if (options.method == DedupOptions::Method::MinHash) {
    options.minhash.bands = static_cast<int>(settings.integer("bands", 14, 1, 256));
    options.minhash.rows = static_cast<int>(settings.integer("rows", 8, 1, 64));
    options.minhash.shingle = static_cast<int>(settings.integer("words", 5, 1, 64));
    options.minhash.seed = static_cast<uint64_t>(settings.integer("seed", 1, 0, INT64_MAX));
  }
  settings.finish();
  return options;
}

void add_dedup(CLI::App& data) {
  auto args = std::make_shared<DedupArguments>();
  Command command(data, "dedup", "Drop duplicates: equal texts, near-duplicates or paragraphs",
                  {{"data dedup all.jsonl.zst --out unique --clusters clusters.jsonl",
                    "near-duplicates by MinHash; clusters.jsonl says what was dropped for what"}});
  args->stage.declare(command);
  command.option("--method", args->method, "What counts as a duplicate")
      .one_of({"minhash", "exact", "paragraph"});
  command.option("--verify", args->verify,
                 "Least Jaccard similarity of near-duplicates, checked for every candidate; off: "
                 "sharing a band is enough");
  command.option("--within", args->within, "Compare only documents of one value of this field",
                 "all with all");
  command.option("--clusters", args->clusters, "File for a line per cluster: keep, drop, jaccard",
                 "none");
  command.refuse({"--verify"}, "goes with --method minhash",
                 [args] { return args->method != "minhash"; });
  command.refuse({"--clusters"}, "and --method paragraph exclude each other",
                 [args] { return args->method == "paragraph"; });
  command.on_run([args] {
    const DedupOptions options = dedup_options(*args);
    if (options.method == DedupOptions::Method::MinHash && !args->stage.json) {
      const auto found = [&](double s) { return 100 * minhash_probability(s, options.minhash); };
      print(
          fmt::format("pairs of similarity 0.7, 0.8, 0.9 are found with {:.1f}, {:.1f}, {:.1f} %\n",
                      found(0.7), found(0.8), found(0.9)));
    }
    run(args->stage, "dedup",
        [&](StageOptions& stage) { return run_dedup(options, stage, [](std::string_view) {}); });
  });
}

}  // namespace

void add_data_stages(CLI::App& data) {
  add_extract(data);
  add_filter(data);
  add_dedup(data);
}

}  // namespace quern::cli
