// One request for generated text at work: several choices of one or more prompts in, one JSON
// answer or a stream of events out.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "serve/http.h"
#include "serve/metrics.h"
#include "serve/models.h"
#include "serve/plan.h"

namespace quern::serve {

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  // Throws Overloaded, or BadInput; after that the answer goes through `exchange`.
  static void start(std::shared_ptr<Exchange> exchange, std::shared_ptr<LoadedModel> model,
                    Plan plan, Metrics& metrics);

  Generation(std::shared_ptr<Exchange> exchange, std::shared_ptr<LoadedModel> model, Plan plan,
             Metrics& metrics);

 private:
  using Clock = std::chrono::steady_clock;

  // A token whose log-probability waits until its text may be shown.
  struct HeldToken {
    TokenId id;
    Logprobs logprobs;
    size_t begin, end;  // bytes of the choice's text that it stands for
  };
  struct Choice {
    size_t prompt = 0;
    bool begun = false, done = false;
    Completion completion;
    std::vector<HeldToken> held;
    size_t released = 0;     // of `held`
    size_t text_bytes = 0;   // that all its tokens stand for
    size_t shown_bytes = 0;  // of the text that is out
    int64_t offset = 0;      // characters before the next token: completions' text_offset
    Clock::time_point last_token;
  };

  // Called on the worker's thread.
  void on_token(size_t index, const NewToken& token);
  void on_done(size_t index, Completion completion);
  void on_close();  // on the network's

  void hold(Choice& choice, TokenId id, const Logprobs& logprobs);
  size_t count_releasable(const Choice& choice, bool at_end) const;
  nlohmann::ordered_json release(Choice& choice, bool at_end);
  nlohmann::ordered_json logprobs_json(Choice& choice, size_t begin, size_t end) const;
  void send_begin(size_t index);
  void send_piece(size_t index, const std::string& text, const nlohmann::ordered_json& logprobs,
                  const char* finish);
  void send(const nlohmann::ordered_json& event);
  void end_stream();
  void respond();
  void fail(std::exception_ptr failure);
  nlohmann::ordered_json envelope(const char* object) const;
  nlohmann::ordered_json usage() const;
  std::string prompt_text(size_t prompt) const;
  void note_usage();

  std::shared_ptr<Exchange> exchange_;
  std::shared_ptr<LoadedModel> model_;
  Plan plan_;
  Metrics& metrics_;
  std::string id_;
  int64_t created_;
  Clock::time_point started_ = Clock::now();
  std::vector<Choice> choices_;
  size_t open_ = 0;
  bool failed_ = false, first_seen_ = false;
  std::mutex mutex_;  // of what follows
  std::vector<Worker::Id> jobs_;
  bool left_ = false;
};

// A token's text for the API: its bytes with U+FFFD for what is no UTF-8.
std::string token_text(const Tokenizer& tokenizer, TokenId id);

}  // namespace quern::serve
