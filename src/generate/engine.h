// Running requests to their end and handing back what came: a Scheduler for those who wait.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "generate/request.h"
#include "generate/scheduler.h"

namespace quern {

class Engine {
 public:
  // `tokenizer` may be null: then there is no text.
  Engine(const Network& network, const Tokenizer* tokenizer, EngineOptions options);
  ~Engine();

  using OnToken = std::function<void(size_t request, const NewToken& token)>;

  // Runs all requests together. Throws BadInput, naming both numbers, when a prompt is longer than
  // the context. `cancel` is looked at every step.
  std::vector<Completion> run(const std::vector<Request>& requests, const OnToken& on_token = {},
                              const std::atomic<bool>* cancel = nullptr);

  // Like run() for one request that continues a conversation: what the prompt has in common with
  // earlier ones is not computed again, as long as dynamic NTK's factor is the same.
  Completion run_continued(const Request& request, const OnToken& on_token = {},
                           const std::atomic<bool>* cancel = nullptr);

  int64_t context() const noexcept { return options_.context; }

 private:
  void ensure_capacity(int64_t tokens, int64_t sequences);

  Network network_;
  const Tokenizer* tokenizer_;
  EngineOptions options_;
  std::unique_ptr<Scheduler> scheduler_;
  int64_t capacity_ = 0, sequences_ = 0;  // of scheduler_
};

}  // namespace quern
