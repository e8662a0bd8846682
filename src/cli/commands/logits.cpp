// quern logits: every logit of a prompt into a file, for comparing with another implementation.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/commands/arguments.h"
#include "cli/framework/output.h"
#include "core/error.h"
#include "formats/safetensors.h"

namespace quern::cli {
namespace {

struct Arguments {
  ModelArguments model;
  std::string ids_file, out;
  int64_t prefill = 0;
  bool force = false;
};

void write_logits(const Arguments& args) {
  claim_output(args.out, args.force);
  const auto lists = read_ids_file(args.ids_file);
  if (lists.size() != 1) throw_bad_input(args.ids_file + ": holds several lists, expected one");
  const std::vector<TokenId>& ids = lists[0];
  Model model(args.model.model, args.model.options());
  const Config& config = model.config();
  check_ids(ids, config, args.ids_file);
  const auto length = static_cast<int64_t>(ids.size());
  const int64_t context = model.engine_options().context;
  if (length > context) {
    throw_bad_input(fmt::format("{}: has {} ids, the context {}", args.ids_file, length, context),
                    "shorten it or raise --context");
  }
  const int64_t prefill = args.prefill > 0 ? std::min(args.prefill, length) : length;
  const bool chunked = kv_policy(model.engine_options().kv_type).chunked;

  KvCache cache(model.backend(), config, model.engine_options().kv_type, length);
  Runner runner(model.network(), chunked ? std::min<int64_t>(512, prefill) : prefill);
  Sequence sequence(cache, config, model.engine_options().rules, prefill);
  sequence.reserve(length);
  SafetensorsWriter writer(args.out, {{"logits", DType::F32, {length, config.output_vocab}}});
  bool finite = true;
  const auto feed = [&](int64_t begin, int64_t end) {
    if (sequence.outgrown_by(config, end)) {  // what came before is computed again
      sequence.restart(config, end);
      sequence.reserve(length);
      for (int64_t at = 0; at < begin; at += runner.max_tokens()) {
        const auto count = static_cast<size_t>(std::min(runner.max_tokens(), begin - at));
        const BatchItem item = {&sequence, std::span(ids).subspan(static_cast<size_t>(at), count)};
        runner.forward({&item, 1}, cache);
      }
    }
    const BatchItem item = {&sequence, std::span(ids).subspan(size_t(begin), size_t(end - begin))};
    const ConstRows hidden = runner.forward({&item, 1}, cache, Runner::Want::All);
    for (int64_t row = 0; row < hidden.rows; row += runner.max_logits()) {
      const MutRows logits =
          runner.logits(hidden.slice(row, std::min(row + runner.max_logits(), hidden.rows)));
      const std::span<const float> values(logits.data, size_t(logits.rows * logits.cols));
      finite = finite && std::all_of(values.begin(), values.end(),
                                     [](float value) { return std::isfinite(value); });
      writer.write(bytes_of(values));
    }
  };
  for (int64_t begin = 0; begin < prefill; begin += runner.max_tokens()) {
    feed(begin, std::min(begin + runner.max_tokens(), prefill));
  }
  for (int64_t i = prefill; i < length; ++i) feed(i, i + 1);
  if (!finite) model.explain_nonfinite();
  writer.finish();
  print(fmt::format("{}: logits, float32 [{}, {}]\n", args.out, length, config.output_vocab));
}

}  // namespace

void add_logits(CLI::App& root) {
  Command command(root, "logits", "Write the logits of token ids to a safetensors file",
                  {{"logits MODEL --ids-file ids.json --out logits.safetensors",
                    "tensor `logits`, float32 [tokens, vocab]"},
                   {"logits MODEL --ids-file ids.json --prefill 60 --out logits.safetensors",
                    "60 ids in one call, the others one at a time through the cache"}});
  auto args = std::make_shared<Arguments>();
  args->model.kv_cache = "fp32";
  args->model.declare(command);
  command.group("Logits");
  command.option("--ids-file", args->ids_file, "JSON file with a list of token ids")
      .file()
      .required();
  command
      .option("--prefill", args->prefill,
              "Tokens of the prefill, the rest decoded one at a time; 0 = all")
      .range(int64_t{0}, int64_t{1} << 31);
  command.option("--out", args->out, "safetensors file to write").file().required();
  command.flag("--force", args->force, "Replace the file if it exists");
  command.on_run([args] { write_logits(*args); });
}

}  // namespace quern::cli
