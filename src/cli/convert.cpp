// quern convert: a checkpoint in another type, in other shards, or out of PyTorch's .bin files.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/arguments.h"
#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"
#include "formats/convert_floats.h"
#include "formats/safetensors.h"
#include "formats/torch_bin.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::string model, out, dtype;
  bool from_pickle = false;
  int64_t shard_mb = 5000;
};

bool is_float(DType dtype) {
  return dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16 || dtype == DType::F64;
}

// The tensors to write, wherever they come from.
struct Source {
  std::vector<NamedTensor> tensors;
  std::optional<TensorStore> store;
  std::optional<TorchBin> pickle;
};

Source open_source(const Arguments& args) {
  Source source;
  if (args.from_pickle) {
    source.pickle = TorchBin::open(args.model);
    source.tensors = source.pickle->tensors();
  } else {
    source.store = TensorStore::open(args.model);
    for (const std::string& name : source.store->names()) {
      source.tensors.push_back({name, source.store->at(name)});
    }
  }
  return source;
}

// config.json with the new type; everything else that belongs to a checkpoint as it is.
void copy_files(const fs::path& from, const fs::path& to, std::optional<DType> dtype) {
  constexpr const char* kNames[] = {"generation_config.json",
                                    "quantize_config.json",
                                    "tokenizer_config.json",
                                    "special_tokens_map.json",
                                    "tokenizer.json",
                                    "tokenizer.model",
                                    "vocab.json",
                                    "merges.txt",
                                    "chat_template.jinja",
                                    "LICENSE",
                                    "NOTICE"};
  for (const char* name : kNames) {
    if (fs::is_regular_file(from / name)) write_file(to / name, read_file(from / name));
  }
  for (const auto& entry : fs::directory_iterator(from)) {
    if (entry.path().extension() == ".tiktoken") {
      write_file(to / entry.path().filename(), read_file(entry.path()));
    }
  }
  if (!fs::is_regular_file(from / "config.json")) return;
  const Json config = Json::parse_file((from / "config.json").string());
  nlohmann::ordered_json changed = config.raw();
  if (dtype) {
    changed["torch_dtype"] = *dtype == DType::F32   ? "float32"
                             : *dtype == DType::F16 ? "float16"
                                                    : "bfloat16";
  }
  write_file(to / "config.json", dump(changed, 2) + "\n");
}

void convert(const Arguments& args) {
  std::optional<DType> dtype;
  if (!args.dtype.empty()) {
    dtype = dtype_from_user(args.dtype);
    if (!dtype || !is_float(*dtype) || *dtype == DType::F64) {
      throw Error(Kind::Misused, fmt::format("--dtype is '{}'", printable(args.dtype, 40)),
                  "expected fp32, fp16 or bf16");
    }
  }
  if (!fs::exists(args.model)) throw_bad_input(args.model + ": there is no such file or folder");
  const Source source = open_source(args);
  // GPTQ's scales belong to its packing and keep their type.
  const auto target = [&](const NamedTensor& tensor) {
    const bool change = dtype && is_float(tensor.view.dtype) && !tensor.name.ends_with(".scales");
    return change ? *dtype : tensor.view.dtype;
  };
  std::vector<PlannedTensor> plan;
  uint64_t total = 0;
  for (const NamedTensor& tensor : source.tensors) {
    plan.push_back({tensor.name, target(tensor), tensor.view.shape});
    total += plan.back().bytes();
  }
  const InterruptScope scope;  // so that Ctrl-C removes what is half written
  AtomicFolder folder(args.out);
  CheckpointWriter writer(folder.temporary(), plan,
                          static_cast<uint64_t>(args.shard_mb) * 1'000'000);
  Progress progress("writing " + args.out, total, "bytes");
  uint64_t written = 0;
  std::vector<std::byte> bytes;
  for (const NamedTensor& tensor : source.tensors) {
    check_interrupted();
    const std::span<const std::byte> raw(tensor.view.data, tensor.view.size_bytes());
    if (target(tensor) == tensor.view.dtype) {
      writer.write(raw);
      written += raw.size();
    } else {
      encode_floats(to_floats(tensor.view, tensor.name), target(tensor), bytes);
      writer.write(bytes);
      written += bytes.size();
    }
    progress.update(written);
  }
  writer.finish();
  const fs::path from =
      fs::is_directory(args.model) ? fs::path(args.model) : fs::path(args.model).parent_path();
  copy_files(from.empty() ? "." : from, folder.temporary(), dtype);
  folder.commit();
  progress.finish();
  print(fmt::format("{}: {} tensors, {}\n", args.out, plan.size(), human_bytes(total)));
}

}  // namespace

void add_convert(CLI::App& root) {
  Command command(root, "convert", "Rewrite a checkpoint: type, shard size, out of pickle files",
                  {{"convert Qwen-7B Qwen-7B-fp16 --dtype fp16", "another number type"},
                   {"convert Qwen-7B out --shard-size 2000", "files of at most 2 GB"},
                   {"convert old-checkpoint out --from-pickle", "PyTorch .bin to safetensors"}});
  auto args = std::make_shared<Arguments>();
  command.positional("model", args->model, "Checkpoint folder or file")->required();
  command.positional("out", args->out, "Folder to make")->required();
  command.option("--dtype", args->dtype, "Type of the numbers: fp32, fp16 or bf16", "as they are");
  command.option("--shard-size", args->shard_mb, "Largest file, in MB")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  command.flag("--from-pickle", args->from_pickle,
               "Read PyTorch .bin files, with a reader that can make nothing but tensors");
  command.on_run([args] { convert(*args); });
}

}  // namespace quern::cli
