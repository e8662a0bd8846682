#include "serve/models.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "model/adapter_base.h"
#include "serve/api_error.h"

namespace quern::serve {
namespace {

constexpr int64_t kMaxAdapterRank = 256;  // costs a KB of scratch for each token of a step

ApiException unknown_model(const std::string& name) {
  ApiError unknown;
  unknown.status = 404;
  unknown.message = fmt::format("there is no model '{}' here", printable(name, 100));
  unknown.code = "model_not_found";
  unknown.param = "model";
  return ApiException(unknown);
}

ApiException conflict(std::string message) {
  ApiError error = error_of_status(409, std::move(message));
  error.param = "name";
  return ApiException(error);
}

// Left to the rest: tokenizer, connections, the program itself.
constexpr uint64_t kReserve = uint64_t{64} << 20;

uint64_t weight_bytes(const Model& model) {
  return static_cast<uint64_t>(count_parameters(model.config()).total) *
         size_bytes(model.config().dtype);
}

// Guesses are ids, so they must mean the same in both models.
void check_same_vocabulary(const Model& model, const Model& draft) {
  const Tokenizer &a = model.tokenizer(), &b = draft.tokenizer();
  bool same = a.size() == b.size();
  for (TokenId id = 0; same && id < a.size(); ++id) same = a.token_bytes(id) == b.token_bytes(id);
  if (same) return;
  throw_bad_input(fmt::format("{}: its vocabulary is not that of {}", draft.folder().string(),
                              model.folder().string()),
                  "a draft model must have the same tokens");
}

WorkerOptions worker_options(const Model& model, const Model* draft, const ModelsOptions& wanted,
                             uint64_t budget) {
  WorkerOptions options;
  options.engine = model.engine_options();
  options.engine.chunk = wanted.chunk;
  options.engine.queue_seconds = wanted.queue_seconds;
  options.engine.speculate = wanted.speculate;
  options.engine.adapter_rank = kMaxAdapterRank;
  options.queue = wanted.queue;
  uint64_t per_token = KvCache::bytes_per_token(model.config(), options.engine.kv_type);
  uint64_t used =
      kReserve + Scheduler::scratch_bytes(model.config(), options.engine, wanted.sequences,
                                          model.weights().max_lora_rank());
  if (draft != nullptr) {
    options.engine.draft = {&draft->config(), &draft->weights(), draft->engine_options().rules};
    used += weight_bytes(*draft) + Drafter::memory_bytes(draft->config(), wanted.sequences, 0);
    per_token += KvCache::bytes_per_token(draft->config(), DType::F32);
  }
  const uint64_t per_page = per_token * KvLayout::page_tokens;
  const uint64_t room = budget > used ? budget - used : 0;
  const auto most = static_cast<int64_t>(room / per_page) * KvLayout::page_tokens;
  const int64_t context = options.engine.context;
  // Every sequence takes a page more than the capacity; a context for each is all that is of use.
  options.sequences = std::min(wanted.sequences, std::max<int64_t>(1, most / 256));
  const int64_t pages = most / KvLayout::page_tokens - options.sequences;
  options.capacity =
      std::min(std::max<int64_t>(pages, 0) * KvLayout::page_tokens, context * options.sequences);
  constexpr int64_t kLeast = 256;
  if (options.capacity < std::min(context, kLeast)) {
    throw Error(Kind::NoResources,
                fmt::format("{}: {} are left for the KV cache, which is less than {} tokens of {}",
                            model.folder().string(), human_bytes(room), std::min(context, kLeast),
                            human_bytes(per_token)),
                "give it more --memory, fewer --max-streams or a smaller --kv-cache type");
  }
  return options;
}

}  // namespace

LoadedModel::Engine::Engine(const ModelSource& source, const ModelsOptions& options,
                            uint64_t budget_bytes)
    : model(source.folder, source.options),
      draft(options.draft.empty() || options.speculate == 0
                ? nullptr
                : std::make_unique<Model>(options.draft,
                                          ModelOptions{.threads = source.options.threads})),
      worker(model, worker_options(model, draft.get(), options,
                                   // Mapped weights are part of what is given, not of what is free.
                                   options.memory_bytes == 0 ? budget_bytes
                                   : budget_bytes > weight_bytes(model)
                                       ? budget_bytes - weight_bytes(model)
                                       : 0)) {
  if (draft != nullptr) check_same_vocabulary(model, *draft);
}

LoadedModel::LoadedModel(const ModelSource& source, const ModelsOptions& options,
                         uint64_t budget_bytes)
    : own_(std::make_unique<Engine>(source, options, budget_bytes)),
      engine_(*own_),
      name(source.name),
      model(engine_.model),
      worker(engine_.worker) {}

LoadedModel::LoadedModel(const ModelSource& source, std::shared_ptr<LoadedModel> base,
                         std::shared_ptr<const Adapter> with)
    : base_(std::move(base)),
      engine_(base_->engine_),
      name(source.name),
      adapter(std::move(with)),
      model(engine_.model),
      worker(engine_.worker) {}

std::shared_ptr<const TokenTrie> LoadedModel::trie() {
  std::call_once(engine_.trie_made, [this] {
    engine_.trie = std::make_shared<TokenTrie>(model.tokenizer(), model.config().output_vocab);
  });
  return engine_.trie;
}

Models::Models(std::vector<ModelSource> sources, const ModelsOptions& options) : options_(options) {
  for (ModelSource& source : sources) {
    if (slot_of(source.name) != nullptr) {
      throw Error(Kind::Misused, fmt::format("two models are called '{}'", source.name),
                  "name them as NAME=FOLDER");
    }
    auto slot = std::make_shared<Slot>();
    slot->card = describe_model(source.folder);
    slot->source = std::move(source);
    slots_.push_back(std::move(slot));
  }
}

Models::~Models() {
  cancel_all();
  std::unique_lock lock(mutex_);
  for (const auto& slot : slots_) slot->model.reset();
  buried_.wait(lock, [&] { return alive_ == 0; });
}

std::vector<std::shared_ptr<const Models::Entry>> Models::entries() const {
  const std::lock_guard lock(mutex_);
  return {slots_.begin(), slots_.end()};
}

std::shared_ptr<Models::Slot> Models::slot_of(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  for (const auto& slot : slots_) {
    if (name.empty() || slot->source.name == name) return slot;
  }
  return nullptr;
}

std::unique_ptr<LoadedModel> Models::load(const ModelSource& source) {
  size_t whole = 0;  // models that have weights of their own
  for (const auto& entry : entries()) whole += entry->source.base.empty() ? 1 : 0;
  // Half of what is free, so that the machine has the other half; or the share that was given.
  const uint64_t budget =
      options_.memory_bytes == 0 ? available_memory() / 2 / whole : options_.memory_bytes / whole;
  if (source.base.empty()) return std::make_unique<LoadedModel>(source, options_, budget);
  std::shared_ptr<LoadedModel> base = get(source.base);
  try {
    warn_of_other_base(source.adapter, source.folder, source.options.strict);
    auto adapter =
        Adapter::load(source.adapter, source.folder, base->model.weights(), base->model.config());
    if (adapter->max_rank() > kMaxAdapterRank) {
      throw Error(Kind::Unsupported,
                  fmt::format("{}: has rank {}, a shared model takes {} at most",
                              source.adapter.string(), adapter->max_rank(), kMaxAdapterRank));
    }
    return std::make_unique<LoadedModel>(source, std::move(base), std::move(adapter));
  } catch (const Error& error) {
    if (!source.may_copy || error.kind() != Kind::Unsupported) throw;
    log::warning(fmt::format("{}; '{}' gets weights of its own", error.what(), source.name));
  }
  ModelSource whole_model = source;
  whole_model.options.adapters.push_back(source.adapter);
  return std::make_unique<LoadedModel>(whole_model, options_, budget);
}

std::shared_ptr<LoadedModel> Models::get(const std::string& name) {
  const std::shared_ptr<Slot> slot = slot_of(name);
  if (slot == nullptr) throw unknown_model(name);
  const auto there = [&] {
    const std::lock_guard lock(mutex_);
    slot->used = std::chrono::steady_clock::now();
    return slot->model;
  };
  if (auto model = there()) return model;
  const std::lock_guard loading(slot->loading);
  if (auto model = there()) return model;
  std::unique_ptr<LoadedModel> made = load(slot->source);
  const auto bury = [this](LoadedModel* done) {
    graveyard_.post([this, done] {
      delete done;
      const std::lock_guard lock(mutex_);
      --alive_;
      buried_.notify_all();
    });
  };
  const std::lock_guard lock(mutex_);
  ++alive_;
  std::shared_ptr<LoadedModel> model(made.release(), bury);
  slot->model = model;
  slot->used = std::chrono::steady_clock::now();
  return model;
}

void Models::add_adapter(ModelSource source) {
  const std::shared_ptr<Slot> base = slot_of(source.base);
  if (base == nullptr || !base->source.base.empty()) throw unknown_model(source.base);
  source.base = base->source.name;
  source.folder = base->source.folder;
  source.options = base->source.options;
  auto slot = std::make_shared<Slot>();
  slot->card = base->card;
  slot->source = source;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& other : slots_) {
      if (other->source.name == source.name) {
        throw conflict(fmt::format("a model is called '{}' already", printable(source.name, 100)));
      }
    }
    slots_.push_back(slot);
  }
  try {
    get(source.name);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    std::erase(slots_, slot);
    throw;
  }
}

void Models::remove_adapter(const std::string& name) {
  std::shared_ptr<LoadedModel> last;  // let go of behind the lock
  const std::lock_guard lock(mutex_);
  const auto found =
      std::ranges::find_if(slots_, [&](const auto& slot) { return slot->source.name == name; });
  if (found == slots_.end()) throw unknown_model(name);
  if ((*found)->source.base.empty()) {
    throw conflict(fmt::format("'{}' is no adapter", printable(name, 100)));
  }
  last = std::move((*found)->model);
  slots_.erase(found);
}

void Models::check() {
  get("");
  const auto all = entries();
  for (size_t i = 1; i < all.size(); ++i) {
    const ModelSource& source = all[i]->source;
    if (source.base.empty()) {
      // Weights are mapped: what is not read takes no memory.
      const Model tried(source.folder, source.options);
    } else {
      get(source.name);
    }
  }
}

std::string Models::memory_line() const {
  uint64_t weights = 0, cache = 0, adapters = 0;
  for (const auto& model : loaded()) {
    if (model->adapter != nullptr) adapters += model->adapter->bytes();
    if (model->shares_its_base()) continue;
    weights += weight_bytes(model->model);
    cache += static_cast<uint64_t>(model->worker.load().pages) *
             static_cast<uint64_t>(KvLayout::page_tokens) *
             KvCache::bytes_per_token(model->model.config(), model->model.engine_options().kv_type);
    if (model->draft() != nullptr) weights += weight_bytes(*model->draft());
  }
  std::string out = fmt::format("{} in all: weights {}, keys and values {}",
                                human_bytes(weights + cache + adapters), human_bytes(weights),
                                human_bytes(cache));
  if (adapters > 0) out += ", adapters " + human_bytes(adapters);
  return out;
}

std::vector<std::shared_ptr<LoadedModel>> Models::loaded() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<LoadedModel>> all;
  for (const auto& slot : slots_) {
    if (slot->model) all.push_back(slot->model);
  }
  return all;
}

void Models::unload_idle() {
  if (options_.idle_unload.count() == 0) return;
  const std::lock_guard lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  for (const auto& slot : slots_) {
    // One more user than the slot: a request is at work, or an adapter over it is loaded.
    if (!slot->model || slot->model.use_count() > 1) continue;
    if (now - slot->used < options_.idle_unload) continue;
    log::info(fmt::format("unloading {}", slot->source.name));
    slot->model.reset();
  }
}

void Models::cancel_all() {
  for (const auto& model : loaded()) model->worker.cancel_all();
}

}  // namespace quern::serve
