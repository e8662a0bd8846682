// quern merge: adapters into the checkpoint that they were trained on.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/checkpoint_files.h"
#include "cli/commands/model_store.h"
#include "cli/framework/output.h"
#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"
#include "core/thread_pool.h"
#include "formats/adapter_merge.h"
#include "formats/convert_floats.h"
#include "formats/gguf.h"
#include "formats/gptq.h"
#include "model/config.h"
#include "text/load.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::string model, out, dtype;
  std::vector<std::string> adapters;  // as given: the folder to make stands last
  double scale = 1;
  int64_t shard_mb = 5000;
  bool force = false;
};

// Only the weights of floats can hold what an adapter adds.
void refuse_quantized(const std::string& model) {
  if (is_gguf(model)) {
    throw Error(Kind::Unsupported, model + ": is a GGUF file",
                fmt::format("make a folder of floats of it first: quern convert {} FOLDER", model));
  }
  if (!fs::exists(model)) throw_bad_input(model + ": there is no such folder");
  if (!fs::is_directory(model)) throw_bad_input(model + ": is a file", "name the folder");
  if (read_gptq_config(model)) {
    throw Error(Kind::Unsupported, model + ": is quantized",
                "merge into the float checkpoint that it was made of, then quern quantize");
  }
}

void merge(Arguments args) {
  if (args.adapters.size() < 2) {
    throw Error(Kind::Misused, "merge takes a model, its adapters, and the folder to make",
                "quern merge MODEL ADAPTER OUT");
  }
  args.out = args.adapters.back();
  args.adapters.pop_back();
  const std::optional<DType> dtype = checkpoint_dtype(args.dtype);
  refuse_quantized(args.model);
  load_config(args.model);  // a checkpoint that is one
  const TensorStore base = TensorStore::open(args.model);
  const AdapterMerge merged(base, {args.adapters.begin(), args.adapters.end()}, args.scale);
  std::vector<PlannedTensor> plan;
  uint64_t total = 0;
  for (const std::string& name : merged.names()) {
    plan.push_back({name,
                    dtype.value_or(merged.unties() && !base.find(name) ? merged.dtype(name)
                                                                       : base.find(name)->dtype),
                    merged.shape(name)});
    total += plan.back().bytes();
  }
  const InterruptScope scope;
  ThreadPool pool(globals().threads);
  OutputFolder folder(args.out, args.force);
  CheckpointWriter writer(folder.temporary(), plan,
                          static_cast<uint64_t>(args.shard_mb) * 1'000'000);
  Progress progress("writing " + args.out, total, "bytes");
  uint64_t written = 0;
  std::vector<std::byte> bytes;
  for (const PlannedTensor& tensor : plan) {
    check_interrupted();
    const ConstTensorView view = merged.view(tensor.name);
    if (!merged.changes(tensor.name) && view.dtype == tensor.dtype) {
      writer.write({view.data, view.size_bytes()});
    } else {
      encode_floats(merged.values(tensor.name, pool), tensor.dtype, bytes);
      writer.write(bytes);
    }
    written += tensor.bytes();
    progress.update(written);
  }
  writer.finish();
  copy_side_files(args.model, folder.temporary());
  nlohmann::ordered_json config = config_with_dtype(args.model, dtype, base.has_fp8());
  if (merged.unties()) config["tie_word_embeddings"] = false;
  write_file(folder.temporary() / "config.json", dump(config, 2) + "\n");
  folder.commit();
  progress.finish();
  print(fmt::format("{}: {} matrices changed of {} tensors, {}\ntry: quern {} {}\n", args.out,
                    merged.updates(), plan.size(), human_bytes(total),
                    has_tokenizer(args.out) ? "chat" : "inspect", args.out));
}

}  // namespace

void add_merge(CLI::App& root) {
  Command command(root, "merge", "Merge LoRA adapters into a checkpoint",
                  {{"merge base adapter merged", "a checkpoint that needs no adapter"},
                   {"merge base adapter half --scale 0.5", "half of what was learnt"}});
  auto args = std::make_shared<Arguments>();
  command.positional("model", args->model, "Checkpoint folder of floats")
      .required()
      .replaced(resolve_model);
  command
      .positional("adapters", args->adapters,
                  "Adapter folders in PEFT's layout, then the folder to make")
      .required();
  command.option("--scale", args->scale, "Factor of the update").range(-1e6, 1e6);
  command.option("--dtype", args->dtype, "Type of the numbers: fp32, fp16 or bf16", "the model's");
  command.option("--shard-size", args->shard_mb, "Largest file, in MB")
      .range(int64_t{1}, int64_t{1} << 40);
  command.flag("--force", args->force, "Replace what is there under the name of `out`");
  command.on_run([args] { merge(*args); });
}

}  // namespace quern::cli
