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

// What a name stands for: a checkpoint, or a LoRA adapter over one that has a name of its own.
struct ModelSource {
  std::string name;
  fs::path folder;
  ModelOptions options;
  std::string base;  // name of the model that the adapter is for; empty: no adapter
  fs::path adapter;  // its folder
  // Where the adapter cannot share the base's weights, since it replaces some: load them once more.
  bool may_copy = false;
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

// A model at work. Whoever holds it keeps it loaded. One that is an adapter over another shares
// that one's weights, cache and worker, and a batch mixes requests of both.
class LoadedModel {
 public:
  LoadedModel(const ModelSource& source, const ModelsOptions& options, uint64_t budget_bytes);
  LoadedModel(const ModelSource& source, std::shared_ptr<LoadedModel> base,
              std::shared_ptr<const Adapter> adapter);

 private:
  struct Engine {
    Engine(const ModelSource& source, const ModelsOptions& options, uint64_t budget_bytes);
    Model model;
    std::unique_ptr<Model> draft;  // null without one
    Worker worker;
    std::once_flag trie_made;
    std::shared_ptr<const TokenTrie> trie;  // automatons of requests hold it, too
  };
  std::unique_ptr<Engine> own_;
  std::shared_ptr<LoadedModel> base_;
  Engine& engine_;

 public:
  const std::string name;
  const std::shared_ptr<const Adapter> adapter;  // null without one
  Model& model;
  Worker& worker;
  const Model* draft() const noexcept { return engine_.draft.get(); }
  bool shares_its_base() const noexcept { return base_ != nullptr; }
  // The vocabulary for grammars, made when one is first asked for.
  std::shared_ptr<const TokenTrie> trie();
};

class Models {
 public:
  // Throws Misused when two have the same name.
  Models(std::vector<ModelSource> sources, const ModelsOptions& options);
  ~Models();  // waits until nobody holds one any more

  struct Entry {
    ModelSource source;
    ModelCard card;  // read once, when the model got its name
  };
  std::vector<std::shared_ptr<const Entry>> entries() const;

  // Gives a name to an adapter over the model called source.base (empty: the first), and loads it.
  // Throws what loading throws; ApiException 404 for an unknown base, 409 for a name that is taken.
  void add_adapter(ModelSource source);
  // Takes an adapter's name away; requests under way go on. Throws ApiException 404 for a name that
  // is none, 409 for a model that is no adapter.
  void remove_adapter(const std::string& name);

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
  struct Slot : Entry {
    std::mutex loading;
    std::shared_ptr<LoadedModel> model;
    std::chrono::steady_clock::time_point used;
  };

  std::shared_ptr<Slot> slot_of(const std::string& name) const;  // null where there is none
  std::unique_ptr<LoadedModel> load(const ModelSource& source);

  ModelsOptions options_;
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<Slot>> slots_;
  int64_t alive_ = 0;  // loaded models that somebody holds
  std::condition_variable buried_;
  // A model's last user may be its own worker's thread, which cannot wait for its own end.
  TaskPool graveyard_{1};
};

}  // namespace quern::serve
