// quern convert: a checkpoint in another type, in other shards, or out of PyTorch's .bin files.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/checkpoint_files.h"
#include "cli/commands/convert_family.h"
#include "cli/commands/convert_gguf.h"
#include "cli/commands/model_store.h"
#include "cli/framework/output.h"
#include "core/error.h"
#include "core/json.h"
#include "core/log.h"
#include "core/progress.h"
#include "formats/convert_floats.h"
#include "formats/safetensors.h"
#include "formats/tiktoken.h"
#include "formats/tokenizer_spec.h"
#include "formats/torch_bin.h"
#include "model/families.h"
#include "model/gguf_config.h"
#include "model/gguf_names.h"
#include "model/relayout.h"
#include "text/chat_template.h"
#include "text/gguf_tokenizer.h"
#include "text/load.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::string model, out, dtype, extra_vocab, to, type = "F16", family;
  bool from_pickle = false, force = false, lossy = false;
  int64_t shard_mb = 5000;
};

bool is_float(DType dtype) {
  return dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16 || dtype == DType::F64;
}

// The tensors to write, wherever they come from.
struct Source {
  std::vector<NamedTensor> tensors;
  std::unique_ptr<TensorStore> store;
  std::optional<TorchBin> pickle;
  // For a GGUF file: the tensors that a folder has no place for, and the others in the layout of the
  // family's own files. These are made when they are written; until then `tensors` has no data.
  std::vector<std::string> unused;
  std::optional<Relayout> relayout;
  std::vector<TensorSpec> specs;
};

Source open_source(const Arguments& args, std::optional<DType> dtype) {
  Source source;
  if (args.from_pickle) {
    source.pickle = TorchBin::open(args.model);
    source.tensors = source.pickle->tensors();
  } else {
    const bool gguf = is_gguf(args.model);
    source.store = std::make_unique<TensorStore>(
        gguf ? gguf_tensors(args.model, load_config(args.model),
                            {.blocks = dtype.value_or(DType::F16), .unused = &source.unused})
             : TensorStore::open(args.model));
    if (gguf) {
      const Config config = load_config(args.model), files = family_layout(config);
      source.relayout.emplace(*source.store, config, files);
      source.specs = tensor_specs(files);
      std::ranges::sort(source.specs, {}, &TensorSpec::name);
      for (const TensorSpec& spec : source.specs) {
        source.tensors.push_back(
            {spec.name, {source.relayout->dtype(spec), file_shape(spec, files), nullptr}});
      }
    }
    if (!source.unused.empty()) {
      log::warning(fmt::format("{}: not written, for the model has no use for it: {}", args.model,
                               fmt::join(source.unused, ", ")));
    }
    for (const std::string& name : gguf ? std::vector<std::string>() : source.store->names()) {
      source.tensors.push_back({name, source.store->at(name)});
    }
  }
  return source;
}

// New tokens for a checkpoint: each begins as the mean of the tokens that its bytes were before.
struct Growth {
  int64_t first_id = 0, end_id = 0;
  std::vector<std::vector<TokenId>> pieces;  // of each new token

  // Rows of a table of `rows`, whole blocks of 128 as the releases have.
  int64_t rows(int64_t rows_now) const { return std::max(rows_now, (end_id + 127) / 128 * 128); }
};

// Embedding and head have a row for each token.
bool has_token_rows(const std::string& name) {
  return name == "transformer.wte.weight" || name == "wte.weight" ||
         name == "model.embed_tokens.weight" || name == "lm_head.weight";
}

std::optional<Growth> read_growth(const Arguments& args) {
  if (args.extra_vocab.empty()) return std::nullopt;
  const Config config = load_config(args.model);
  const TensorNames& names = row_of(config.family).names;
  for (const std::string_view table : {names.embedding, names.lm_head}) {
    if (has_token_rows(std::string(table) + ".weight")) continue;
    throw Error(
        Kind::Unsupported,
        fmt::format("--extra-vocab does not know the tensors of {} models", name(config.family)));
  }
  const auto before = load_tokenizer(args.model);
  const RankedTokens extra = read_tiktoken(args.extra_vocab);
  load_tokenizer(args.model,
                 {.extra_vocab = args.extra_vocab});  // checks that they belong together
  Growth growth;
  growth.first_id = extra.first_rank;
  growth.end_id = extra.first_rank + static_cast<int64_t>(extra.tokens.size());
  for (const std::string& token : extra.tokens) {
    growth.pieces.push_back(before->encode_bytes(token, BadText::Keep));
  }
  return growth;
}

// Fills the rows of new tokens in `bytes`, the table with all its rows in `dtype`.
void fill_new_rows(const Growth& growth, const NamedTensor& tensor, DType dtype,
                   std::vector<std::byte>& bytes) {
  const int64_t rows = tensor.view.shape[0], columns = tensor.view.shape[1];
  const size_t row_bytes = static_cast<size_t>(columns) * size_bytes(dtype);
  const size_t old_bytes = static_cast<size_t>(columns) * size_bytes(tensor.view.dtype);
  bytes.resize(static_cast<size_t>(growth.rows(rows)) * row_bytes);
  std::vector<float> mean(static_cast<size_t>(columns));
  std::vector<std::byte> row;
  for (size_t i = 0; i < growth.pieces.size(); ++i) {
    std::fill(mean.begin(), mean.end(), 0.0f);
    for (const TokenId piece : growth.pieces[i]) {
      if (piece >= rows) throw_bad_input(fmt::format("{} has no row {}", tensor.name, piece));
      const ConstTensorView one = {tensor.view.dtype,
                                   {1, columns},
                                   tensor.view.data + static_cast<size_t>(piece) * old_bytes};
      const std::vector<float> values = to_floats(one, tensor.name);
      for (size_t k = 0; k < mean.size(); ++k) {
        mean[k] += values[k] / static_cast<float>(growth.pieces[i].size());
      }
    }
    encode_floats(mean, dtype, row);
    const auto at = static_cast<size_t>(growth.first_id) + i;
    std::copy(row.begin(), row.end(), bytes.begin() + static_cast<ptrdiff_t>(at * row_bytes));
  }
}

// config.json with the new type; everything else that belongs to a checkpoint as it is.
void copy_files(const fs::path& from, const fs::path& to, std::optional<DType> dtype,
                const std::optional<Growth>& growth, bool fp8) {
  copy_side_files(from, to);
  if (!fs::is_regular_file(from / "config.json")) return;
  nlohmann::ordered_json changed = config_with_dtype(from, dtype, fp8);
  if (growth && changed.contains("vocab_size")) {
    changed["vocab_size"] = growth->rows(changed["vocab_size"].get<int64_t>());
  }
  write_file(to / "config.json", dump(changed, 2) + "\n");
}

// A folder with the weights of another family's layout.
void write_family_files(const fs::path& from, const fs::path& to, Config config,
                        std::optional<DType> dtype) {
  if (dtype) config.dtype = *dtype;
  write_file(to / "config.json", dump(to_json(config), 2) + "\n");
  copy_side_files(from, to);
  for (const auto& entry : fs::directory_iterator(to)) {
    if (entry.path().extension() == ".tiktoken") fs::remove(entry.path());
  }
  if (has_tokenizer(from)) {
    write_file(to / "tokenizer.json", to_tokenizer_json(load_tokenizer_spec(from)));
  }
}

// --force replaces a checkpoint, but neither the one that is read nor a folder of something else.
void make_room(const Arguments& args) {
  claim_output(args.out, args.force);
  if (!is_taken(args.out)) return;
  std::error_code ignored;
  if (fs::equivalent(args.model, args.out, ignored)) {
    throw Error(Kind::Misused, args.out + ": is the checkpoint itself");
  }
  if (fs::is_directory(args.out) && !fs::exists(fs::path(args.out) / "config.json")) {
    throw Error(Kind::Misused, args.out + ": is a folder that is no checkpoint, and stays");
  }
}

bool makes_gguf(const Arguments& args) {
  return args.to.empty() ? is_gguf(args.out) : args.to == "gguf";
}

void convert(const Arguments& args) {
  const std::optional<DType> dtype = checkpoint_dtype(args.dtype);
  if (!fs::exists(args.model)) throw_bad_input(args.model + ": there is no such file or folder");
  const bool to_gguf = makes_gguf(args);
  if (!args.to.empty() && args.to != "gguf" && args.to != "safetensors") {
    throw Error(Kind::Misused, fmt::format("--to is '{}'", printable(args.to, 40)),
                "expected safetensors or gguf");
  }
  if (!to_gguf && is_gguf(args.out)) {
    throw Error(Kind::Misused, args.out + ": safetensors are written into a folder",
                "without --to, the ending .gguf makes a GGUF file");
  }
  make_room(args);
  if (to_gguf) {
    convert_to_gguf(args.model, args.out, args.type, args.lossy);
    return;
  }
  if (!args.family.empty() && is_gguf(args.model)) {
    throw Error(Kind::Misused, "--family is for folders", "convert in two steps");
  }
  Source source = open_source(args, dtype);
  const fs::path folder_of_model =
      fs::is_directory(args.model) ? fs::path(args.model) : fs::path(args.model).parent_path();
  std::optional<Config> other_family;
  if (!args.family.empty()) {
    FamilyChange change = change_family(load_config(args.model), source.tensors, args.family);
    report_lost(args.out, change.lost, args.lossy);
    source.tensors = std::move(change.tensors);
    other_family = std::move(change.config);
  }
  const std::optional<Growth> growth = read_growth(args);
  // GPTQ's scales belong to its packing and keep their type.
  const auto target = [&](const NamedTensor& tensor) {
    const bool change = dtype && is_float(tensor.view.dtype) && !tensor.name.ends_with(".scales");
    return change ? *dtype : tensor.view.dtype;
  };
  std::vector<PlannedTensor> plan;
  uint64_t total = 0;
  for (const NamedTensor& tensor : source.tensors) {
    plan.push_back({tensor.name, target(tensor), tensor.view.shape});
    if (growth && has_token_rows(tensor.name)) {
      if (tensor.view.shape.rank() != 2 || !is_float(tensor.view.dtype)) {
        throw_bad_input(tensor.name + " is not a table of numbers with a row for each token");
      }
      plan.back().shape = {growth->rows(tensor.view.shape[0]), tensor.view.shape[1]};
    }
    total += plan.back().bytes();
  }
  const InterruptScope scope;  // so that Ctrl-C removes what is half written
  OutputFolder folder(args.out, args.force);
  CheckpointWriter writer(folder.temporary(), plan,
                          static_cast<uint64_t>(args.shard_mb) * 1'000'000);
  Progress progress("writing " + args.out, total, "bytes");
  uint64_t written = 0;
  std::vector<std::byte> bytes, made;
  for (size_t i = 0; i < source.tensors.size(); ++i) {
    check_interrupted();
    NamedTensor tensor = source.tensors[i];
    if (source.relayout) {
      encode_floats(source.relayout->floats(source.specs[i]), tensor.view.dtype, made);
      tensor.view.data = made.data();
    }
    const std::span<const std::byte> raw(tensor.view.data, tensor.view.size_bytes());
    if (growth && has_token_rows(tensor.name)) {
      if (target(tensor) == tensor.view.dtype) {
        bytes.assign(raw.begin(), raw.end());
      } else {
        encode_floats(to_floats(tensor.view, tensor.name), target(tensor), bytes);
      }
      fill_new_rows(*growth, tensor, target(tensor), bytes);
      writer.write(bytes);
      written += bytes.size();
    } else if (target(tensor) == tensor.view.dtype) {
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
  const fs::path from = folder_of_model.empty() ? "." : folder_of_model;
  if (other_family) {
    write_family_files(from, folder.temporary(), *other_family, dtype);
  } else if (is_gguf(args.model)) {
    write_gguf_files(args.model, folder.temporary(), dtype);
  } else {
    copy_files(from, folder.temporary(), dtype, growth, source.store && source.store->has_fp8());
  }
  folder.commit();
  progress.finish();
  print(fmt::format("{}: {} tensors, {}\n", args.out, plan.size(), human_bytes(total)));
}

}  // namespace

void add_convert(CLI::App& root) {
  Command command(root, "convert",
                  "Rewrite a checkpoint: type, shard size, to and from GGUF, out of pickle files",
                  {{"convert Qwen-7B Qwen-7B-fp16 --dtype fp16", "another number type"},
                   {"convert Qwen-7B out --shard-size 2000", "files of at most 2 GB"},
                   {"convert Qwen-7B qwen-7b.gguf --type Q8_0 --lossy", "a file for llama.cpp"},
                   {"convert tiny.gguf folder --dtype fp32", "a GGUF file as a folder"},
                   {"convert Qwen-7B out --extra-vocab extra.tiktoken", "rows for added tokens"},
                   {"convert old-checkpoint out --from-pickle", "PyTorch .bin to safetensors"}});
  auto args = std::make_shared<Arguments>();
  command.positional("model", args->model, "Checkpoint folder or file, GGUF too")
      .required()
      .replaced(resolve_model);
  command.positional("out", args->out, "Folder to make, or GGUF file").required();
  command.option("--dtype", args->dtype, "Type of the numbers: fp32, fp16 or bf16", "as they are");
  command.option("--to", args->to, "safetensors or gguf", "gguf where out ends in .gguf");
  command.option("--type", args->type,
                 "GGUF: type of the matrices, F32, F16, BF16, Q8_0, Q4_0 or Q4_K");
  command.option("--extra-vocab", args->extra_vocab,
                 "Grow embedding and head for this .tiktoken file of added tokens, each the mean "
                 "of what it was made of");
  command.option("--shard-size", args->shard_mb, "Largest file, in MB")
      .range(int64_t{1}, int64_t{1} << 40);
  command.option("--family", args->family,
                 "Layout of another family: qwen2, for a model of Qwen's first release");
  command.flag("--lossy", args->lossy,
               "Write what loses a part of the model all the same, with a warning");
  command.flag("--force", args->force, "Replace what is there under the name of `out`");
  command.flag("--from-pickle", args->from_pickle,
               "Read PyTorch .bin files, with a reader that can make nothing but tensors");
  command.refuse({"--dtype", "--extra-vocab", "--shard-size", "--family", "--from-pickle"},
                 "is for folders, and a GGUF file is to be made",
                 [args] { return makes_gguf(*args); });
  command.refuse({"--type"}, "is for GGUF files, and a folder is to be made",
                 [args] { return !makes_gguf(*args); });
  command.refuse({"--extra-vocab", "--family"},
                 "is for folders: convert the GGUF file to one first",
                 [args] { return is_gguf(args->model); });
  command.refuse({"--extra-vocab"}, "and --family exclude each other: convert in two steps",
                 [args] { return !args->family.empty(); });
  command.on_run([args] { convert(*args); });
}

}  // namespace quern::cli
