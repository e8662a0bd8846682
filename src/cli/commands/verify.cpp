// quern verify: is a checkpoint whole and sound?
#include <fmt/format.h>

#include "cli/commands/arguments.h"
#include "cli/commands/model_store.h"
#include "core/error.h"
#include "core/progress.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"

namespace quern::cli {
namespace {

void verify(const std::string& path) {
  const fs::path folder = path;
  if (fs::is_regular_file(folder) &&
      !is_gguf(folder)) {  // a file alone: its structure and its numbers
    const TensorStore store = TensorStore::open(folder);
    for (const NonFinite& bad : find_nonfinite(store)) {
      throw_bad_input(
          fmt::format("{}: {} has {} values that are NaN or infinite", path, bad.name, bad.count));
    }
    print(fmt::format("{}: {} tensors, {}, all finite\n", path, store.size(),
                      human_bytes(store.total_bytes())));
    return;
  }
  const Config config = load_config(folder);
  const LoadedWeights weights = LoadedWeights::load(folder, config, {.pack = false});
  weights.check_finite();
  print(fmt::format("{}: {} weights, {}, shapes as {} implies, all finite\n", path,
                    weights.description(), human_bytes(weights.file_bytes()),
                    is_gguf(folder) ? "its metadata" : "config.json"));
  for (const std::string& name : weights.unused()) {
    print(fmt::format("  not used by the model: {}\n", name));
  }
  read_generation_config(folder);
  if (is_gguf(folder) && !has_tokenizer(folder)) {
    print("  no tokenizer\n");
    return;
  }
  std::shared_ptr<const Tokenizer> tokenizer;
  try {
    tokenizer = load_tokenizer(folder);
  } catch (const Error& error) {
    if (error.kind() != Kind::Unsupported) throw;
    print(fmt::format("  tokenizer: of a kind that is not read, so only ids run: {}\n",
                      error.what()));
    return;
  }
  if (tokenizer->size() > config.vocab) {
    throw_bad_input(fmt::format("{}: the tokenizer has {} tokens, the embedding {} rows", path,
                                tokenizer->size(), config.vocab),
                    "the tokenizer belongs to another model");
  }
  print(fmt::format("  tokenizer: {} tokens, sha256 {}\n", tokenizer->size(),
                    tokenizer->hash().substr(0, 16)));
}

}  // namespace

void add_verify(CLI::App& root) {
  Command command(
      root, "verify", "Check a checkpoint: structure, shapes, numbers, tokenizer",
      {{"verify Qwen-7B", "every file of a folder"}, {"verify model.safetensors", "one file"}});
  auto path = std::make_shared<std::string>();
  command.positional("model", *path, "Checkpoint folder, safetensors or GGUF file")
      .required()
      .replaced(resolve_model);
  command.on_run([path] { verify(*path); });
}

}  // namespace quern::cli
