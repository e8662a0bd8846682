// quern verify: is a checkpoint whole and sound?
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/model_store.h"
#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"

namespace quern::cli {
namespace {

// Prints what it finds; with `json` one object of the facts.
void verify(const fs::path& folder, bool json) {
  const std::string path = folder.string();
  nlohmann::ordered_json facts = {{"path", path}, {"sound", true}};
  const auto say = [&](const std::string& line) {
    if (!json) print(line);
  };
  const auto done = [&] {
    if (json) print(dump(facts) + "\n");
  };
  if (fs::is_regular_file(folder) &&
      !is_gguf(folder)) {  // a file alone: its structure and its numbers
    const TensorStore store = TensorStore::open(folder);
    for (const NonFinite& bad : find_nonfinite(store)) {
      throw_bad_input(
          fmt::format("{}: {} has {} values that are NaN or infinite", path, bad.name, bad.count));
    }
    say(fmt::format("{}: {} tensors, {}, all finite\n", path, store.size(),
                    human_bytes(store.total_bytes())));
    facts["tensors"] = store.size();
    facts["bytes"] = store.total_bytes();
    return done();
  }
  const Config config = load_config(folder);
  const LoadedWeights weights = LoadedWeights::load(folder, config, {.pack = false});
  weights.check_finite();
  facts["weights"] = weights.description();
  facts["bytes"] = weights.file_bytes();
  facts["unused_tensors"] = weights.unused();
  say(fmt::format("{}: {} weights, {}, shapes as {} implies, all finite\n", path,
                  weights.description(), human_bytes(weights.file_bytes()),
                  is_gguf(folder) ? "its metadata" : "config.json"));
  for (const std::string& name : weights.unused()) {
    say(fmt::format("  not used by the model: {}\n", name));
  }
  read_generation_config(folder);
  if (is_gguf(folder) && !has_tokenizer(folder)) {
    say("  no tokenizer\n");
    return done();
  }
  std::shared_ptr<const Tokenizer> tokenizer;
  try {
    tokenizer = load_tokenizer(folder);
  } catch (const Error& error) {
    if (error.kind() != Kind::Unsupported) throw;
    say(fmt::format("  tokenizer: of a kind that is not read, so only ids run: {}\n",
                    error.what()));
    facts["tokenizer"] = nullptr;
    return done();
  }
  if (tokenizer->size() > config.vocab) {
    throw_bad_input(fmt::format("{}: the tokenizer has {} tokens, the embedding {} rows", path,
                                tokenizer->size(), config.vocab),
                    "the tokenizer belongs to another model");
  }
  say(fmt::format("  tokenizer: {} tokens, sha256 {}\n", tokenizer->size(),
                  tokenizer->hash().substr(0, 16)));
  facts["tokenizer"] = {{"tokens", tokenizer->size()}, {"sha256", tokenizer->hash()}};
  done();
}

}  // namespace

void add_verify(CLI::App& root) {
  Command command(
      root, "verify", "Check a checkpoint: structure, shapes, numbers, tokenizer",
      {{"verify Qwen-7B", "every file of a folder"}, {"verify model.safetensors", "one file"}});
  struct Arguments {
    std::string path;
    bool json = false;
  };
  auto args = std::make_shared<Arguments>();
  command
      .positional("model", args->path, "Checkpoint folder, training run, safetensors or GGUF file")
      .required()
      .replaced(resolve_model);
  command.flag("--json", args->json, "Print one JSON object");
  command.on_run([args] { verify(checkpoint_of(args->path), args->json); });
}

}  // namespace quern::cli
