// The models that a server has: loaded when first asked for, unloaded after a while without use.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "generate/model.h"
#include "generate/model_card.h"
#include "grammar/grammar.h"
#include "serve/task_pool.h"
#include "serve/worker.h"

namespace quern::serve {

// What a name stands for: a checkpoint, maybe with a LoRA adapter.
struct ModelSource {
  std::string name;
  fs::path folder;
  ModelOptions options;
};

struct ModelsOptions {
  int64_t sequences = 64;
  int64_t queue = 256;
  double queue_seconds = 60;
  int64_t chunk = 512;
  int64_t speculate = 0;
  fs::path draft;  // a smaller model of the same vocabulary that guesses; empty: the text's past
  uint64_t memory_bytes = 0;  // for weights, caches and scratch of all models; 0: what is free
  std::chrono::seconds idle_unload{0};  // 0: never
};

// A model at work. Whoever holds it keeps it loaded.
struct LoadedModel {
  LoadedModel(const ModelSource& source, const ModelsOptions& options, uint64_t budget_bytes);

  std::string name;
  Model model;
  std::unique_ptr<Model> draft;  // null without one
  // The vocabulary for grammars, made when one is first asked for.
  std::shared_ptr<const TokenTrie> trie();
  Worker worker;

 private:
  std::once_flag trie_made_;
  std::shared_ptr<const TokenTrie> trie_;  // automatons of requests hold it, too
};

class Models {
 public:
  // Throws Misused when two have the same name.
  Models(std::vector<ModelSource> sources, const ModelsOptions& options);
  ~Models();  // waits until nobody holds one any more

  const std::vector<ModelSource>& sources() const noexcept { return sources_; }
  // One for each source, in the same order; read once, when the server starts.
  const std::vector<ModelCard>& cards() const noexcept { return cards_; }
  bool has(const std::string& name) const noexcept;

  // Loads the model if it is not there. Throws what loading throws; ApiException 404 for a name
  // that is unknown. Empty: the first.
  std::shared_ptr<LoadedModel> get(const std::string& name);
  // Loads the first and reads the others as far as loading would fail: whatever is wrong with any
  // of them is thrown before somebody asks for it.
  void check();
  // "2.1 GB of weights, 1.0 GB of cache": of those that are loaded, for the user.
  std::string memory_line() const;
  // Those that are loaded now.
  std::vector<std::shared_ptr<LoadedModel>> loaded() const;
  // Lets go of models that nobody asked for in the last idle_unload.
  void unload_idle();
  // Ends all requests, with a failure for those whose client still listens.
  void cancel_all();

 private:
  struct Slot {
    std::mutex loading;
    std::shared_ptr<LoadedModel> model;
    std::chrono::steady_clock::time_point used;
  };

  std::vector<ModelSource> sources_;
  std::vector<ModelCard> cards_;
  ModelsOptions options_;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Slot>> slots_;
  int64_t alive_ = 0;  // loaded models that somebody holds
  std::condition_variable buried_;
  // A model's last user may be its own worker's thread, which cannot wait for its own end.
  TaskPool graveyard_{1};
};

}  // namespace quern::serve
