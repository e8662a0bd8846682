// quern init: a checkpoint with random weights.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/checkpoint_files.h"
#include "cli/commands/model_store.h"
#include "cli/framework/output.h"
#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"
#include "formats/convert_floats.h"
#include "formats/generation_config.h"
#include "formats/safetensors.h"
#include "model/initialize.h"
#include "text/chat_template.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::string out, preset, config, dtype, tokenizer;
  uint64_t seed = 0;
  int64_t shard_mb = 5000;
  bool force = false;
};

void init(const Arguments& args) {
  if (args.preset.empty() == args.config.empty()) {
    throw Error(Kind::Misused, "give --preset or --config, one of them");
  }
  claim_output(args.out, args.force);
  Config config =
      args.preset.empty() ? parse_config(Json::parse_file(args.config)) : preset(args.preset);
  config.dtype = checkpoint_dtype(args.dtype).value_or(config.dtype);
  std::shared_ptr<const Tokenizer> tokenizer;
  if (!args.tokenizer.empty()) {
    tokenizer = load_tokenizer(args.tokenizer);
    if (tokenizer->size() > config.vocab) {
      throw Error(Kind::Misused,
                  fmt::format("the tokenizer has {} tokens, the model {} rows of "
                              "embedding",
                              tokenizer->size(), config.vocab),
                  "take a --config with a larger vocab_size");
    }
  }
  const auto specs = tensor_specs(config);
  std::vector<PlannedTensor> plan;
  uint64_t total = 0;
  for (const TensorSpec& spec : specs) {
    plan.push_back({spec.name, config.dtype, file_shape(spec, config)});
    total += plan.back().bytes();
  }
  const InterruptScope scope;  // so that Ctrl-C removes what is half written
  OutputFolder folder(args.out, args.force);
  CheckpointWriter writer(folder.temporary(), plan,
                          static_cast<uint64_t>(args.shard_mb) * 1'000'000);
  ThreadPool pool(globals().threads);
  Progress progress("writing " + args.out, total, "bytes");
  constexpr int64_t kBlock = 1 << 22;  // elements in memory at a time
  std::vector<float> values;
  std::vector<std::byte> bytes;
  uint64_t written = 0;
  for (const TensorSpec& spec : specs) {
    for (int64_t first = 0; first < spec.shape.count(); first += kBlock) {
      check_interrupted();
      const int64_t count = std::min(kBlock, spec.shape.count() - first);
      values.resize(static_cast<size_t>(count));
      pool.parallel_for(count, 1 << 16, [&](int64_t begin, int64_t end, int) {
        initialize(std::span(values).subspan(size_t(begin), size_t(end - begin)), spec, config,
                   args.seed, first + begin);
      });
      encode_floats(values, config.dtype, bytes);
      writer.write(bytes);
      progress.update(written += bytes.size());
    }
  }
  writer.finish();
  write_file(folder.temporary() / "config.json", dump(to_json(config), 2) + "\n");
  const auto generation =
      tokenizer ? new_generation_config(tokenizer->eos(), tokenizer->special("<|im_end|>"))
                : new_generation_config({}, {});
  write_file(folder.temporary() / "generation_config.json", dump(generation, 2) + "\n");
  if (!args.tokenizer.empty()) {
    copy_tokenizer(args.tokenizer, folder.temporary());
    save_release_template(*tokenizer, folder.temporary());
  }
  folder.commit();
  progress.finish();
  print(fmt::format("{}: {} parameters, {}, random weights\n", args.out,
                    human_count(static_cast<uint64_t>(count_parameters(config).total)),
                    human_bytes(total)));
  print(fmt::format("try: quern inspect {}\n", args.out));
}

}  // namespace

void add_init(CLI::App& root) {
  Command command(root, "init", "Make a checkpoint with random weights",
                  {{"init my-7b --preset qwen-7b --tokenizer qwen.tiktoken",
                    "the shape of Qwen-7B, 15 GB in bf16"},
                   {"init tiny --config config.json --dtype fp32 --seed 1", "any config.json"}});
  auto args = std::make_shared<Arguments>();
  command.positional("out", args->out, "Folder to make").folder().required();
  const auto presets = preset_names();
  command.option("--preset", args->preset, "Architecture by name")
      .one_of({presets.begin(), presets.end()});
  command.option("--config", args->config, "Architecture from a config.json").existing_file();
  command.option("--dtype", args->dtype, "Data type of the weights", "the architecture's")
      .one_of({"fp32", "fp16", "bf16"});
  command.option("--seed", args->seed, "Random seed of the weights");
  command.option("--shard-size", args->shard_mb, "Largest weight file in MB")
      .range(int64_t{1}, int64_t{1} << 40);
  command
      .option("--tokenizer", args->tokenizer,
              "Tokenizer file, or model whose tokenizer is copied into it")
      .path()
      .replaced(resolve_model);
  command.flag("--force", args->force, "Replace the folder if it exists");
  command.on_run([args] { init(*args); });
}

}  // namespace quern::cli
