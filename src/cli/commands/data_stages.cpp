// quern data extract, filter, dedup: stages of the data pipeline.
#include "cli/commands/data_stages.h"

#include <fmt/format.h>

#include "cli/commands/stage_arguments.h"
#include "core/error.h"
#include "data/stages/dedup.h"
#include "data/stages/extract.h"
#include "data/stages/filter.h"
#include "data/stages/language.h"

namespace quern::cli {
namespace {

// A folder's pages and texts are one input, its web archives and record files one each.
void add_page_inputs(const std::string& word, std::vector<fs::path>& inputs) {
  if (!fs::is_directory(word)) {
    for (const fs::path& file : expand_inputs({word})) inputs.push_back(file);
    return;
  }
  const size_t before = inputs.size();
  const std::vector<fs::path> files = files_below(word);
  if (std::ranges::any_of(files, is_page_file)) inputs.emplace_back(word);
  for (const fs::path& file : files) {
    if (is_archive_file(file)) inputs.push_back(file);
  }
  const std::vector<fs::path> records = record_files(word);
  inputs.insert(inputs.end(), records.begin(), records.end());
  if (inputs.size() == before) {
    throw_bad_input(
        word + ": holds no page, text, web archive or record file",
        "looked for .html, .txt, .md, .warc, .wet and .jsonl, also compressed; --source "
        "takes source code");
  }
}

void add_extract(CLI::App& data) {
  auto args = std::make_shared<StageArguments>();
  auto html_field = std::make_shared<std::string>();
  Command command(data, "extract", "Read the main text out of web pages, web archives and files",
                  {{"data extract saved-pages --out extracted",
                    "a document for each .html, .txt and .md file of a folder"},
                   {"data extract pages.jsonl.gz crawl.warc.gz --out extracted",
                    "a document per page, with title, date, url and declared language"},
                   {"data extract --source src --out code",
                    "a document per source file, with language and licence"}});
  auto source = std::make_shared<bool>(false);
  args->declare(command);
  command.flag("--source", *source, "Take folders as trees of source files");
  command.option("--html-field", *html_field,
                 "Field that holds a page; bytes in base64 where its name ends in _base64",
                 "html, html_base64");
  command.refuse({"--html-field"}, "and --source exclude each other", [source] { return *source; });
  command.on_run([args, html_field, source] {
    StageSettings settings(args->settings);
    const auto stage = make_extract_stage(settings, *html_field, *source);
    std::vector<fs::path> inputs;
    for (const std::string& word : args->inputs) {
      if (*source && fs::is_directory(word)) {
        inputs.emplace_back(word);
      } else {
        add_page_inputs(word, inputs);
      }
    }
    run_stage_command(*args, args->options(std::move(inputs)), "extract",
                      [&](StageOptions& options) { return run_stage(*stage, options); });
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
    run_stage_command(*args, "filter",
                      [&](StageOptions& options) { return run_stage(*stage, options); });
  });
}

void add_language(CLI::App& data) {
  auto args = std::make_shared<StageArguments>();
  Command command(data, "language", "Tell the language of each document",
                  {{"data language all.jsonl.zst --out told --set keep=en,zh",
                    "lang and lang_score for each; other languages under told/dropped/"}});
  args->declare(command);
  command.on_run([args] {
    StageSettings settings(args->settings);
    const auto stage = make_language_stage(settings);
    run_stage_command(*args, "language",
                      [&](StageOptions& options) { return run_stage(*stage, options); });
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
                   : args.method == "substring" ? DedupOptions::Method::Substring
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
  const bool clusters = options.method == DedupOptions::Method::MinHash ||
                        options.method == DedupOptions::Method::Exact;
  if (clusters) {
    options.score = settings.text("score", "");
  }
  if (options.method == DedupOptions::Method::MinHash) {
    options.minhash.bands = static_cast<int>(settings.integer("bands", 14, 1, 256));
    options.minhash.rows = static_cast<int>(settings.integer("rows", 8, 1, 64));
    options.minhash.shingle = static_cast<int>(settings.integer("words", 5, 1, 64));
    options.minhash.seed = static_cast<uint64_t>(settings.integer("seed", 1, 0, INT64_MAX));
  }
  if (options.method == DedupOptions::Method::Substring) {
    options.passage = settings.integer("words", 50, 2, 1'000'000);
  }
  settings.finish();
  return options;
}

void add_dedup(CLI::App& data) {
  auto args = std::make_shared<DedupArguments>();
  Command command(data, "dedup",
                  "Drop duplicates: equal texts, near-duplicates, paragraphs or passages",
                  {{"data dedup all.jsonl.zst --out unique --clusters clusters.jsonl",
                    "near-duplicates by MinHash; clusters.jsonl says what was dropped for what"}});
  args->stage.ranks = StageArguments::Ranks::FirstAlone;
  args->stage.declare(command);
  command.option("--method", args->method, "What counts as a duplicate")
      .one_of({"minhash", "exact", "paragraph", "substring"});
  command.option("--verify", args->verify,
                 "Least Jaccard similarity of near-duplicates, checked for every candidate; off: "
                 "sharing a band is enough");
  command.option("--within", args->within, "Compare only documents of one value of this field",
                 "all with all");
  command.option("--clusters", args->clusters, "File for a line per cluster: keep, drop, jaccard",
                 "none");
  command.refuse({"--verify"}, "goes with --method minhash",
                 [args] { return args->method != "minhash"; });
  command.refuse({"--clusters"}, "goes with --method minhash or exact",
                 [args] { return args->method == "paragraph" || args->method == "substring"; });
  command.on_run([args] {
    const DedupOptions options = dedup_options(*args);
    if (options.method == DedupOptions::Method::MinHash && !args->stage.json) {
      const auto found = [&](double s) { return 100 * minhash_probability(s, options.minhash); };
      print(
          fmt::format("pairs of similarity 0.7, 0.8, 0.9 are found with {:.1f}, {:.1f}, {:.1f} %\n",
                      found(0.7), found(0.8), found(0.9)));
    }
    run_stage_command(args->stage, "dedup", [&](StageOptions& stage) {
      return run_dedup(options, stage, [](std::string_view) {});
    });
  });
}

}  // namespace

void add_data_stages(CLI::App& data) {
  add_extract(data);
  add_filter(data);
  add_language(data);
  add_dedup(data);
  add_data_generate(data);
  add_data_decontaminate(data);
  add_data_mix(data);
  add_data_rft(data);
  add_data_sample(data);
  add_data_train(data);
  add_data_run(data);
}

}  // namespace quern::cli
