// One running request for generated text: several choices of one or more prompts in, one JSON
// answer or a stream of events out. A class for each API writes them in its form.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/api_error.h"
#include "serve/http.h"
#include "serve/metrics.h"
#include "serve/models.h"
#include "serve/plan.h"
#include "serve/reply_reader.h"

namespace quern::serve {

class Generation {
 public:
  Generation(std::shared_ptr<Exchange> exchange, std::shared_ptr<LoadedModel> model, Plan plan,
             Metrics& metrics);
  virtual ~Generation() = default;
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // Throws Overloaded or BadInput. Once it returns, the answer goes through the exchange.
  static void start(const std::shared_ptr<Generation>& self);

 protected:
  // A token whose log-probability waits until its text may be shown.
  struct HeldToken {
    TokenId id;
    Logprobs logprobs;
    size_t begin, end;  // bytes of the choice's text that it stands for
  };
  struct Call {
    std::string id, name, arguments;
  };
  struct Choice {
    explicit Choice(const ReplyRules& rules) : reader(rules) {}

    size_t prompt = 0;
    // The reply of a conversation, as far as it is read.
    ReplyReader reader;
    std::string text, reasoning;
    std::vector<Call> calls;
    bool has_text = false;
    bool begun = false;
    Completion completion;
    std::vector<HeldToken> held;
    int64_t made = 0;        // tokens so far
    size_t released = 0;     // of `held`
    size_t text_bytes = 0;   // that all its tokens stand for
    size_t shown_bytes = 0;  // of the text that is out
    int64_t offset = 0;      // characters before the next token: completions' text_offset
    std::chrono::steady_clock::time_point last_token;
  };
  // A part of a stream: text, the held tokens that belong to it, and how it ended if it did.
  struct Piece {
    size_t choice = 0;
    std::string_view text;
    std::vector<ReplyEvent> events;  // what the text means, in a conversation
    size_t first = 0, last = 0;      // of Choice::held
    std::optional<FinishReason> finish;
  };
  struct Usage {
    int64_t prompt = 0, cached = 0, made = 0;
  };

  // ---- An API's form, called on the worker's thread, one at a time ----
  virtual void stream_begin(size_t choice) = 0;  // before the choice's first piece
  virtual void stream_piece(const Piece& piece) = 0;
  virtual void stream_end() = 0;
  virtual void stream_failure(const ApiError& error) = 0;
  virtual std::string whole_answer() = 0;  // the body, when all choices are done

  // How many of the held tokens may be shown: those whose text is out; at the end also a token whose
  // text is out in part.
  static size_t count_releasable(const Choice& choice, bool at_end);
  std::string prompt_text(size_t prompt) const;
  Usage usage() const;
  // Whether the choice calls tools.
  static bool calls_tools(const Choice& choice) { return !choice.calls.empty(); }
  // prompt_n, prompt_ms, predicted_n and their like, as llama-server words them.
  nlohmann::ordered_json timings() const;
  const Tokenizer& tokenizer() const { return model_->model.tokenizer(); }

  std::shared_ptr<Exchange> exchange_;
  Plan plan_;
  int64_t created_;  // seconds since 1970
  std::vector<Choice> choices_;

 private:
  void on_token(size_t index, const NewToken& token);
  void on_done(size_t index, Completion completion);
  void on_close();  // on the network's thread
  void read_reply(Choice& choice, Piece& piece, std::optional<TokenId> id);
  void hold(Choice& choice, TokenId id, const Logprobs& logprobs);
  Piece release(size_t index, std::string_view text, std::optional<FinishReason> finish);
  void fail(std::exception_ptr failure);
  void cancel();

  std::shared_ptr<LoadedModel> model_;
  Metrics& metrics_;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::vector<std::pair<std::string, std::string>> headers_;  // of the answer
  size_t open_ = 0;
  bool failed_ = false, first_seen_ = false;
  std::mutex mutex_;  // of what follows
  std::vector<Worker::Id> jobs_;
  bool left_ = false;
};

// The forms: chat, text completions, responses, Anthropic's messages.
using MakeGeneration = std::shared_ptr<Generation>(std::shared_ptr<Exchange> exchange,
                                                   std::shared_ptr<LoadedModel> model, Plan plan,
                                                   Metrics& metrics);
MakeGeneration make_chat, make_text, make_response, make_message;

// "chatcmpl-" and random digits.
std::string new_id(std::string_view prefix);

// A token's bytes; empty for ids that the tokenizer does not have.
std::string_view bytes_of(const Tokenizer& tokenizer, TokenId id);
// A token's text for the API: its bytes with U+FFFD for what is no UTF-8.
std::string token_text(const Tokenizer& tokenizer, TokenId id);
// JSON has no infinity, but the log-probability of a masked token is minus infinity.
double finite(float logprob);

}  // namespace quern::serve
