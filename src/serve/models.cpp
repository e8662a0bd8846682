#include "serve/models.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "serve/api_error.h"

namespace quern::serve {
namespace {

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

LoadedModel::LoadedModel(const ModelSource& source, const ModelsOptions& options,
                         uint64_t budget_bytes)
    : name(source.name),
      model(source.folder, source.options),
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

std::shared_ptr<const TokenTrie> LoadedModel::trie() {
  std::call_once(trie_made_, [this] {
    trie_ = std::make_shared<TokenTrie>(model.tokenizer(), model.config().output_vocab);
  });
  return trie_;
}

Models::Models(std::vector<ModelSource> sources, const ModelsOptions& options)
    : sources_(std::move(sources)), options_(options) {
  for (size_t i = 0; i < sources_.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (sources_[i].name != sources_[j].name) continue;
      throw Error(Kind::Misused, fmt::format("two models are called '{}'", sources_[i].name),
                  "name them as NAME=FOLDER");
    }
    slots_.push_back(std::make_unique<Slot>());
    cards_.push_back(describe_model(sources_[i].folder));
  }
}

Models::~Models() {
  cancel_all();
  std::unique_lock lock(mutex_);
  for (const auto& slot : slots_) slot->model.reset();
  buried_.wait(lock, [&] { return alive_ == 0; });
}

bool Models::has(const std::string& name) const noexcept {
  return std::ranges::any_of(sources_, [&](const auto& source) { return source.name == name; });
}

std::shared_ptr<LoadedModel> Models::get(const std::string& name) {
  const auto source =
      name.empty() ? sources_.begin() : std::ranges::find(sources_, name, &ModelSource::name);
  if (source == sources_.end()) {
    ApiError unknown;
    unknown.status = 404;
    unknown.message = fmt::format("there is no model '{}' here", printable(name, 100));
    unknown.code = "model_not_found";
    unknown.param = "model";
    throw ApiException(unknown);
  }
  Slot& slot = *slots_[static_cast<size_t>(source - sources_.begin())];
  const auto there = [&] {
    const std::lock_guard lock(mutex_);
    slot.used = std::chrono::steady_clock::now();
    return slot.model;
  };
  if (auto model = there()) return model;
  const std::lock_guard loading(slot.loading);
  if (auto model = there()) return model;
  // Half of what is free, so that the machine has the other half; or the share that was given.
  const uint64_t budget = options_.memory_bytes == 0 ? available_memory() / 2 / sources_.size()
                                                     : options_.memory_bytes / sources_.size();
  auto made = std::make_unique<LoadedModel>(*source, options_, budget);
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
  slot.model = model;
  slot.used = std::chrono::steady_clock::now();
  return model;
}

void Models::check() {
  get("");
  for (size_t i = 1; i < sources_.size(); ++i) {
    // Weights are mapped: what is not read takes no memory.
    const Model tried(sources_[i].folder, sources_[i].options);
  }
}

std::string Models::memory_line() const {
  uint64_t weights = 0, cache = 0;
  for (const auto& model : loaded()) {
    weights += weight_bytes(model->model);
    cache += static_cast<uint64_t>(model->worker.load().pages) *
             static_cast<uint64_t>(KvLayout::page_tokens) *
             KvCache::bytes_per_token(model->model.config(), model->model.engine_options().kv_type);
    if (model->draft != nullptr) weights += weight_bytes(*model->draft);
  }
  return fmt::format("{} in all: weights {}, keys and values {}", human_bytes(weights + cache),
                     human_bytes(weights), human_bytes(cache));
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
  for (size_t i = 0; i < slots_.size(); ++i) {
    Slot& slot = *slots_[i];
    // One more user than the slot: a request is at work.
    if (!slot.model || slot.model.use_count() > 1) continue;
    if (now - slot.used < options_.idle_unload) continue;
    log::info(fmt::format("unloading {}", sources_[i].name));
    slot.model.reset();
  }
}

void Models::cancel_all() {
  for (const auto& model : loaded()) model->worker.cancel_all();
}

}  // namespace quern::serve
