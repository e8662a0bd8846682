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
#include "model/float_base.h"
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

// The base: floats as they lie in its files, or what its quantized matrices stand for.
struct Base {
  std::optional<TensorStore> stored;
  std::optional<FloatBase> quantized;

  const TensorStore& floats() const { return quantized ? quantized->floats() : *stored; }
};

Base open_base(const std::string& model, std::optional<DType> dtype) {
  if (!fs::exists(model)) throw_bad_input(model + ": there is no such folder or file");
  const bool gguf = is_gguf(model);
  if (!gguf && !fs::is_directory(model)) throw_bad_input(model + ": is a file", "name the folder");
  const Config config = load_config(model);  // a checkpoint that is one
  Base base;
  if (gguf || read_gptq_config(model)) {
    base.quantized.emplace(model, config, dtype.value_or(DType::F16));
  } else {
    base.stored.emplace(TensorStore::open(model));
  }
  return base;
}

// config.json and the files beside it.
void write_files(const std::string& model, const fs::path& to, std::optional<DType> dtype,
                 const Base& base, bool unties) {
  nlohmann::ordered_json config;
  if (is_gguf(model)) {
    write_gguf_files(model, to, dtype);
    config = config_with_dtype(to, std::nullopt, false);
  } else {
    copy_side_files(model, to);
    config = config_with_dtype(model, dtype, base.floats().has_fp8());
    // What says how the base was packed.
    config.erase("quantization_config");
    for (const char* file : {"quantize_config.json", "quant_config.json"}) fs::remove(to / file);
  }
  if (unties) config["tie_word_embeddings"] = false;
  write_file(to / "config.json", dump(config, 2) + "\n");
}

void merge(Arguments args) {
  if (args.adapters.size() < 2) {
    throw Error(Kind::Misused, "merge takes a model, its adapters, and the folder to make",
                "quern merge MODEL ADAPTER OUT");
  }
  args.out = args.adapters.back();
  args.adapters.pop_back();
  std::optional<DType> dtype = checkpoint_dtype(args.dtype);
  const Base opened = open_base(args.model, dtype);
  if (opened.quantized && !dtype) dtype = DType::F16;  // as scales of such files are
  const TensorStore& base = opened.floats();
  const AdapterMerge merged(
      base, {args.adapters.begin(), args.adapters.end()}, args.scale,
      [&](const std::string& name) { return opened.quantized->values(name); });
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
    if (view.data != nullptr && !merged.changes(tensor.name) && view.dtype == tensor.dtype) {
      writer.write({view.data, view.size_bytes()});
    } else {
      encode_floats(merged.values(tensor.name, pool), tensor.dtype, bytes);
      writer.write(bytes);
    }
    written += tensor.bytes();
    progress.update(written);
  }
  writer.finish();
  write_files(args.model, folder.temporary(), dtype, opened, merged.unties());
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
                   {"merge base adapter half --scale 0.5", "half of what was learnt"},
                   {"merge base-int4 adapter-int4 merged --dtype bf16",
                    "floats of a quantized base; quern quantize packs them again"}});
  auto args = std::make_shared<Arguments>();
  command
      .positional("model", args->model,
                  "Checkpoint folder, or GGUF file; quantized ones become floats")
      .required()
      .replaced(resolve_model);
  command
      .positional("adapters", args->adapters,
                  "Adapter folders in PEFT's layout, then the folder to make")
      .required();
  command.option("--scale", args->scale, "Factor of the update").range(-1e6, 1e6);
  command.option("--dtype", args->dtype, "Type of the numbers: fp32, fp16 or bf16",
                 "the model's; fp16 where it is quantized");
  command.option("--shard-size", args->shard_mb, "Largest file, in MB")
      .range(int64_t{1}, int64_t{1} << 40);
  command.flag("--force", args->force, "Replace what is there under the name of `out`");
  command.on_run([args] { merge(*args); });
}

}  // namespace quern::cli
