#include "evaluate/answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/isa.h"

namespace quern {
namespace {

constexpr int64_t kSequences = 16;         // answered at once
constexpr int64_t kMostPositions = 65536;  // of the cache over all of them
constexpr int64_t kTop = 64;               // likeliest tokens asked for where a letter is wanted

// Room for the prompts at work and for the beginnings that others share.
int64_t cache_positions(const Model& model) {
  const int64_t context = model.engine_options().context;
  const uint64_t per_token = std::max<uint64_t>(
      1, KvCache::bytes_per_token(model.config(), model.engine_options().kv_type));
  const auto affordable = static_cast<int64_t>(available_memory() / 3 / per_token);
  return std::max(context, std::min(affordable, std::min(kMostPositions, kSequences * context)));
}

}  // namespace

// A question on its way.
struct LocalModel::Pending {
  Question question;
  size_t index = 0;
  std::vector<TokenId> ids;
  std::vector<std::vector<TokenId>> choices;
  std::vector<bool> known;
  size_t waiting = 0;  // requests of it that are not done
  std::string text;
  ItemAnswer answer;
};

LocalModel::LocalModel(Model& model, std::string weights_sha256, Options options)
    : model_(model), weights_sha256_(std::move(weights_sha256)), options_(options) {
  scheduler_ =
      std::make_unique<Scheduler>(model.network(), &model.tokenizer(), model.engine_options(),
                                  cache_positions(model), kSequences);
}

LocalModel::~LocalModel() = default;

nlohmann::ordered_json LocalModel::identity() const {
  const Config& config = model_.config();
  nlohmann::ordered_json windows = nlohmann::ordered_json::array();
  for (const auto window : config.windows) windows.push_back(window);
  return {{"weights_sha256", weights_sha256_},
          {"weights", model_.loaded().description()},
          {"tokenizer_sha256", model_.tokenizer().hash()},
          {"begins_with", model_.tokenizer().before_text()},
          {"template", model_.is_chat() ? std::string(model_.chat().title()) : std::string("none")},
          {"rules",
           {{"ntk", config.dynamic_ntk},
            {"logn", config.logn},
            {"windows", windows},
            {"context", model_.engine_options().context}}},
          {"kv_cache", std::string(name(model_.engine_options().kv_type))},
          {"kernels", std::string(cpu::name(cpu::chosen_isa()))}};
}

// A benchmark's text is text: names of special tokens in it are no tokens.
std::vector<TokenId> LocalModel::prompt_ids(const Item& item) const {
  if (item.is_chat()) return model_.chat().render({.messages = item.messages}).ids;
  // What the tokenizer's files put before a text, and no more: many have a BOS that nothing begins
  // with.
  std::vector<TokenId> ids = model_.tokenizer().before_text();
  model_.tokenizer().encode(item.prompt, ids);
  return ids;
}

void LocalModel::give_choice(Pending& pending, size_t choice, Completion completion) {
  if (completion.failure) std::rethrow_exception(completion.failure);
  auto& scores = pending.answer.response.choice_logprobs;
  pending.answer.reused_tokens += completion.cached_tokens;
  pending.answer.seconds += completion.prefill_seconds;
  if (!pending.known[choice]) {
    double sum = 0;
    for (const Logprobs& logprobs : completion.prompt_logprobs) {
      sum += static_cast<double>(logprobs.chosen);
    }
    scores[choice] = sum;
    pending.known[choice] = true;
  }
  // The letters are mostly among the likeliest tokens: one pass then tells them all.
  for (size_t i = 0; i < pending.choices.size(); ++i) {
    if (pending.known[i] || pending.choices[i].size() != 1 ||
        completion.prompt_logprobs.size() != 1) {
      continue;
    }
    for (const TokenLogprob& likely : completion.prompt_logprobs[0].top) {
      if (likely.id != pending.choices[i][0]) continue;
      scores[i] = static_cast<double>(likely.logprob);
      pending.known[i] = true;
    }
  }
  --pending.waiting;
}

void LocalModel::ask_choices(Pending& pending) {
  for (size_t i = 0; i < pending.choices.size(); ++i) {
    if (pending.known[i]) continue;
    Request request;
    request.ids = pending.ids;
    request.ids.insert(request.ids.end(), pending.choices[i].begin(), pending.choices[i].end());
    request.max_new_tokens = 0;
    request.prompt_logprobs = pending.choices[i].size() == 1 ? kTop : 0;
    request.prompt_logprobs_from = static_cast<int64_t>(pending.ids.size());
    request.reuse_prefix = options_.share_prefixes;
    ++pending.waiting;
    scheduler_->add(std::move(request), {.token = {}, .done = [this, &pending, i](Completion done) {
                                           if (done.reason == FinishReason::Interrupted) return;
                                           give_choice(pending, i, std::move(done));
                                         }});
    // One request first: it may tell the others.
    if (pending.choices[i].size() == 1) return;
  }
}

void LocalModel::ask_text(Pending& pending) {
  const Item& item = *pending.question.item;
  Request request;
  request.ids = pending.ids;
  if (pending.question.sampling != nullptr) {
    request.sampling = pending.question.sampling->on({});
    request.stream = static_cast<uint64_t>(item.sample);
  } else {
    request.sampling.greedy = true;
  }
  request.stop = model_.default_stop();
  if (!pending.question.complete) request.stop.strings = item.stop;
  request.max_new_tokens = item.max_new_tokens;
  request.reuse_prefix = options_.share_prefixes;
  ++pending.waiting;
  auto id = std::make_shared<Scheduler::Id>(0);
  Scheduler::Listener listener;
  if (pending.question.complete) {
    listener.token = [this, &pending, id](const NewToken& token) {
      pending.text += token.text;
      if (pending.question.complete(pending.text)) complete_.push_back(*id);
    };
  }
  listener.done = [&pending](Completion completion) {
    if (completion.failure) std::rethrow_exception(completion.failure);
    ItemAnswer& answer = pending.answer;
    answer.response.text = std::move(completion.text);
    const bool whole = pending.question.complete && pending.question.complete(answer.response.text);
    if (completion.reason == FinishReason::Interrupted && !whole) return;
    answer.finish = whole ? "stop" : std::string(name(completion.reason));
    answer.reused_tokens = completion.cached_tokens;
    answer.new_tokens = static_cast<int64_t>(completion.ids.size());
    answer.seconds = completion.prefill_seconds + completion.decode_seconds;
    --pending.waiting;
  };
  *id = scheduler_->add(std::move(request), std::move(listener));
}

void LocalModel::answer(std::span<const Question> questions,
                        const std::function<void(size_t, ItemAnswer)>& take,
                        const std::atomic<bool>& cancel) {
  std::vector<std::unique_ptr<Pending>> running;
  struct Leftovers {
    Scheduler& scheduler;
    ~Leftovers() { scheduler.cancel_all(); }
  } leftovers{*scheduler_};
  const int64_t context = scheduler_->context();
  size_t next = 0;
  while (!cancel.load(std::memory_order_relaxed)) {
    while (next < questions.size() && static_cast<int64_t>(running.size()) < kSequences) {
      auto pending = std::make_unique<Pending>();
      pending->question = questions[next];
      pending->index = next++;
      const Item& item = *pending->question.item;
      pending->ids = prompt_ids(item);
      pending->answer.prompt_tokens = static_cast<int64_t>(pending->ids.size());
      int64_t longest = item.choices.empty() ? 1 : 0;
      for (const std::string& choice : item.choices) {
        auto& ids = pending->choices.emplace_back();
        model_.tokenizer().encode(choice, ids);
        longest = std::max(longest, static_cast<int64_t>(ids.size()));
      }
      int64_t most = context - longest;
      const int64_t cut = pending->question.cut_above;
      const bool by_rule = cut > 0 && pending->answer.prompt_tokens > cut && cut - 1 <= most;
      if (by_rule) most = cut - 1;
      if (pending->answer.prompt_tokens > most) {
        if (!by_rule && options_.truncate == Truncate::Refuse) {
          throw_bad_input(fmt::format("{}: the prompt has {} tokens, the context {}", item.id,
                                      pending->answer.prompt_tokens, context),
                          "--truncate left cuts its beginning and counts it; --context may be "
                          "raised");
        }
        most = std::max<int64_t>(most, 1);
        pending->ids.erase(pending->ids.begin(), pending->ids.end() - most);
        pending->answer.truncated = true;
      }
      pending->known.resize(item.choices.size());
      pending->answer.response.choice_logprobs.resize(item.choices.size());
      if (item.choices.empty()) {
        ask_text(*pending);
      } else {
        pending->answer.finish = "score";
        ask_choices(*pending);
      }
      running.push_back(std::move(pending));
    }
    if (running.empty()) return;
    scheduler_->step();
    for (const Scheduler::Id id : complete_) scheduler_->cancel(id);
    complete_.clear();
    for (size_t i = 0; i < running.size();) {
      Pending& pending = *running[i];
      if (pending.waiting == 0 &&
          std::find(pending.known.begin(), pending.known.end(), false) != pending.known.end()) {
        ask_choices(pending);
      }
      if (pending.waiting > 0) {
        ++i;
        continue;
      }
      take(pending.index, std::move(pending.answer));
      running.erase(running.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
}

}  // namespace quern
