#include "generate/engine.h"

#include <algorithm>

namespace quern {

Engine::Engine(const Network& network, const Tokenizer* tokenizer, EngineOptions options)
    : network_(network), tokenizer_(tokenizer), options_(options) {
  if (options_.context == 0) options_.context = network.config.max_context;
}

Engine::~Engine() = default;

void Engine::ensure_capacity(int64_t tokens, int64_t sequences) {
  if (scheduler_ != nullptr && capacity_ >= tokens && sequences_ >= sequences) return;
  scheduler_.reset();  // gives its memory back before the next one takes more
  scheduler_ = std::make_unique<Scheduler>(network_, tokenizer_, options_, tokens, sequences);
  capacity_ = tokens;
  sequences_ = sequences;
}

std::vector<Completion> Engine::run(const std::vector<Request>& requests, const OnToken& on_token,
                                    const std::atomic<bool>* cancel) {
  int64_t tokens = 0;
  for (const Request& request : requests) {
    const auto length = static_cast<int64_t>(request.ids.size());
    tokens += std::min(options_.context, length + request.max_new_tokens);
  }
  ensure_capacity(tokens, static_cast<int64_t>(requests.size()));
  std::vector<Completion> completions(requests.size());
  // Whatever is thrown, no request stays behind that would call into this frame.
  struct Leftovers {
    Scheduler& scheduler;
    ~Leftovers() { scheduler.cancel_all(); }
  } leftovers{*scheduler_};
  for (size_t i = 0; i < requests.size(); ++i) {
    Scheduler::Listener listener;
    if (on_token) listener.token = [&, i](const NewToken& token) { on_token(i, token); };
    listener.done = [&, i](Completion completion) { completions[i] = std::move(completion); };
    scheduler_->add(requests[i], std::move(listener));
  }
  do {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) break;
  } while (scheduler_->step());
  scheduler_->cancel_all();
  for (const Completion& completion : completions) {
    if (completion.failure) std::rethrow_exception(completion.failure);
  }
  return completions;
}

Completion Engine::run_continued(const Request& request, const OnToken& on_token,
                                 const std::atomic<bool>* cancel) {
  ensure_capacity(options_.context, 1);
  Request continued = request;
  continued.reuse_prefix = true;
  return std::move(run({std::move(continued)}, on_token, cancel)[0]);
}

}  // namespace quern
