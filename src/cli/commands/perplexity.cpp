// quern perplexity: how well a model predicts a text, also by context length.
#include "evaluate/perplexity.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"

namespace quern::cli {
namespace {

struct Arguments {
  ModelArguments model;
  std::string file;
  std::string ids_file;
  std::vector<int64_t> lengths;
  int64_t stride = 0, limit = 0;
  bool json = false;
};

void run(const Arguments& args) {
  Model model(args.model.model, args.model.options());
  std::vector<TokenId> ids;
  if (!args.ids_file.empty()) {
    const auto lists = read_ids_file(args.ids_file);
    if (lists.size() != 1) throw_bad_input(args.ids_file + ": holds several lists, expected one");
    ids = lists[0];
    check_ids(ids, model.config(), args.ids_file);
  } else if (!args.file.empty()) {
    ids = model.tokenizer().encode_whole(read_input(args.file));
  } else {
    throw Error(Kind::Misused, "name a text file, or --ids-file");
  }
  if (args.limit > 0 && static_cast<int64_t>(ids.size()) > args.limit) {
    ids.resize(static_cast<size_t>(args.limit));
  }
  std::vector<int64_t> lengths = args.lengths;
  if (lengths.empty()) lengths = {std::min<int64_t>(model.engine_options().context, 2048)};
  if (!args.json) {
    print(
        fmt::format("{:>8} {:>10} {:>12} {:>12}\n", "length", "tokens", "nll/token", "perplexity"));
  }
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const int64_t length : lengths) {
    if (length > model.engine_options().context) {
      throw_bad_input(fmt::format("windows of {} tokens are longer than the context, {}", length,
                                  model.engine_options().context),
                      "raise --context, or ask for shorter ones");
    }
    Progress progress(fmt::format("length {}", length), ids.size(), "tokens");
    const PerplexityResult result =
        perplexity(model, ids, length, args.stride > 0 ? std::min(args.stride, length) : length,
                   [&](int64_t done) { progress.update(static_cast<uint64_t>(done)); });
    progress.finish();
    const double mean = result.nll / static_cast<double>(result.tokens);
    if (args.json) {
      rows.push_back({{"length", length},
                      {"tokens", result.tokens},
                      {"nll_per_token", mean},
                      {"perplexity", result.perplexity()}});
    } else {
      print(fmt::format("{:>8} {:>10} {:>12.5f} {:>12.4f}\n", length, result.tokens, mean,
                        result.perplexity()));
      flush_output();
    }
  }
  if (args.json) {
    print(dump(nlohmann::ordered_json{{"model", args.model.model},
                                      {"dynamic_ntk", model.config().dynamic_ntk},
                                      {"logn", model.config().logn},
                                      {"results", rows}}) +
          "\n");
  }
}

}  // namespace

void add_perplexity(CLI::App& root) {
  Command command(root, "perplexity", "How well a model predicts a text",
                  {{"perplexity Qwen-7B wiki.txt", "windows of 2,048 tokens side by side"},
                   {"perplexity Qwen-7B paper.tex --lengths 1024,2048,4096,8192,16384 "
                    "--dynamic-ntk on --logn on",
                    "perplexity by context length"}});
  auto args = std::make_shared<Arguments>();
  args->model.declare(command);
  command.group("Text");
  command.positional("file", args->file, "Text file; - = standard input").file();
  command.option("--ids-file", args->ids_file, "JSON file with a list of token ids instead").file();
  command
      .option("--lengths,--length", args->lengths, "Window lengths in tokens, comma-separated",
              "2048, or the context if shorter")
      .separated_by(',')
      .range(int64_t{2}, int64_t{1} << 31);
  command.option("--stride", args->stride, "Tokens between window starts; 0 = the window length")
      .range(int64_t{0}, int64_t{1} << 31);
  command.option("--limit", args->limit, "Use only the first N tokens of the text; 0 = all")
      .range(int64_t{0}, int64_t{1} << 40);
  command.flag("--json", args->json, "Print one JSON object");
  command.refuse({"file"}, "and --ids-file exclude each other",
                 [args] { return !args->ids_file.empty(); });
  command.on_run([args] { run(*args); });
}

}  // namespace quern::cli
