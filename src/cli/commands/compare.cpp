// quern compare: what one checkpoint lost against another.
#include "evaluate/compare.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/model_store.h"
#include "cli/framework/output.h"
#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"
#include "plot/chart.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::string a, b, data, ids_file, plot;
  int64_t length = 0, limit = 0;
  bool json = false, force = false;
};

// Two charts: the divergence over the text's positions, and the error behind each block.
void draw(const Comparison& c, const std::string& path) {
  Series divergence, error;
  for (int percent = 0; percent <= 100; ++percent) {
    divergence.x.push_back(percent);
    divergence.y.push_back(
        static_cast<double>(c.kl[(c.kl.size() - 1) * static_cast<size_t>(percent) / 100]));
  }
  for (size_t block = 0; block < c.block_error.size(); ++block) {
    error.x.push_back(static_cast<double>(block));
    error.y.push_back(c.block_error[block]);
  }
  error.markers = true;
  std::vector<Chart> charts = {{.title = "KL divergence of the predictions",
                                .x_label = "percent of the positions with less",
                                .y_label = "nats",
                                .series = {divergence},
                                .log_y = true}};
  if (!error.x.empty()) {
    charts.push_back({.title = "Residual stream",
                      .x_label = "behind block",
                      .y_label = "share of its sum of squares",
                      .series = {error},
                      .log_y = true});
  }
  write_picture(path, draw_svg(charts, 2));
}

void run(const Arguments& args) {
  if (args.data.empty() == args.ids_file.empty()) {
    throw Error(Kind::Misused, "give --data or --ids-file, one of them");
  }
  if (!args.plot.empty()) claim_output(args.plot, args.force);
  ModelOptions options;
  options.threads = globals().threads;
  Model a(args.a, options), b(args.b, options);
  std::vector<TokenId> ids;
  if (!args.ids_file.empty()) {
    const auto lists = read_ids_file(args.ids_file);
    if (lists.size() != 1) throw_bad_input(args.ids_file + ": holds several lists, expected one");
    ids = lists[0];
  } else {
    if (b.has_tokenizer() && a.tokenizer().hash() != b.tokenizer().hash()) {
      throw_bad_input(fmt::format("{} and {} have different tokenizers", args.a, args.b),
                      "only models with the same vocabulary can be compared");
    }
    a.tokenizer().encode(read_input(args.data), ids);
  }
  if (args.limit > 0 && static_cast<int64_t>(ids.size()) > args.limit) {
    ids.resize(static_cast<size_t>(args.limit));
  }
  const int64_t context = std::min(a.engine_options().context, b.engine_options().context);
  const int64_t length = args.length > 0 ? args.length : std::min<int64_t>(context, 2048);
  if (length > context) {
    throw_bad_input(
        fmt::format("windows of {} tokens are longer than the context, {}", length, context));
  }
  const InterruptScope scope;
  Progress progress("comparing", ids.size(), "tokens");
  const Comparison c = compare(a, b, ids, length, [&](int64_t done) {
    check_interrupted();
    progress.update(static_cast<uint64_t>(done));
  });
  progress.finish();
  if (!args.plot.empty()) draw(c, args.plot);
  const auto tokens = static_cast<double>(c.tokens);
  const double ppl_a = std::exp(c.nll_a / tokens), ppl_b = std::exp(c.nll_b / tokens);
  const auto bytes = [](const Model& m) { return m.loaded().file_bytes(); };
  if (args.json) {
    const auto side = [&](const std::string& name, const Model& m, double ppl) {
      return nlohmann::ordered_json{{"model", name},
                                    {"weights", m.loaded().description()},
                                    {"bytes", bytes(m)},
                                    {"perplexity", ppl}};
    };
    print(dump(nlohmann::ordered_json{{"a", side(args.a, a, ppl_a)},
                                      {"b", side(args.b, b, ppl_b)},
                                      {"tokens", c.tokens},
                                      {"length", length},
                                      {"perplexity_ratio", ppl_b / ppl_a},
                                      {"kl_mean", c.kl_mean},
                                      {"kl_p99", c.kl_p99},
                                      {"kl_max", c.kl_max},
                                      {"top1_agreement", c.top1},
                                      {"block_error", c.block_error}}) +
          "\n");
    return;
  }
  print(fmt::format("{:<26} {:>26} {:>12} {:>12}\n", "model", "weights", "size", "perplexity"));
  const auto row = [&](const std::string& name, const Model& m, double ppl) {
    print(fmt::format("{:<26} {:>26} {:>12} {:>12.4f}\n", name, m.loaded().description(),
                      human_bytes(bytes(m)), ppl));
  };
  row(args.a, a, ppl_a);
  row(args.b, b, ppl_b);
  print(fmt::format("\nover {} tokens in windows of {}\n", c.tokens, length));
  print(fmt::format("{:<26} {:+.3f} %\n", "perplexity", 100 * (ppl_b / ppl_a - 1)));
  print(fmt::format("{:<26} mean {:.6f}, 99th percentile {:.6f}, maximum {:.6f} nats\n",
                    "KL divergence", c.kl_mean, c.kl_p99, c.kl_max));
  print(fmt::format("{:<26} {:.3f} %\n", "same most likely token", 100 * c.top1));
  for (size_t block = 0; block < c.block_error.size(); ++block) {
    print(fmt::format("{:<26} {:.4g} %\n", fmt::format("residual stream, block {}", block),
                      100 * c.block_error[block]));
  }
}

}  // namespace

void add_compare(CLI::App& root) {
  Command command(root, "compare",
                  "Compare two checkpoints on a text: perplexity, KL divergence, agreement",
                  {{"compare Qwen-7B Qwen-7B-Chat --data book.txt --limit 2000",
                    "perplexity of both, KL divergence, agreement"}});
  auto args = std::make_shared<Arguments>();
  command.positional("a", args->a, "Reference checkpoint").required().replaced(resolve_model);
  command.positional("b", args->b, "Checkpoint judged against it, as a quantized one")
      .required()
      .replaced(resolve_model);
  command.option("--data", args->data, "Text file; - = standard input").file();
  command.option("--ids-file", args->ids_file, "JSON file with a list of token ids instead").file();
  command
      .option("--length", args->length,
              "Window length in tokens; 0 = 2048, or the context if shorter")
      .range(int64_t{0}, int64_t{1} << 31);
  command.option("--limit", args->limit, "Use only the first N tokens of the text; 0 = all")
      .range(int64_t{0}, int64_t{1} << 40);
  command.flag("--json", args->json, "Print one JSON object");
  command.option("--plot", args->plot, "Draw the divergence and each block's error: .svg or .png")
      .file();
  command.flag("--force", args->force, "Replace the picture if it exists");
  command.on_run([args] { run(*args); });
}

}  // namespace quern::cli
