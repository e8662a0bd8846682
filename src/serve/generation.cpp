#include "serve/generation.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "core/error.h"
#include "core/utf8.h"

namespace quern::serve {

using Clock = std::chrono::steady_clock;

namespace {

// Masks the tokens that end an answer until there are so many others.
class LeastTokens : public Constraint {
 public:
  LeastTokens(int64_t least, std::vector<TokenId> ends) : left_(least), ends_(std::move(ends)) {}

  void mask(std::span<float> logits) override {
    if (left_ <= 0) return;
    for (const TokenId id : ends_) {
      const auto at = static_cast<size_t>(id);
      if (at < logits.size()) logits[at] = -std::numeric_limits<float>::infinity();
    }
  }
  void accept(TokenId) override { --left_; }

 private:
  int64_t left_;
  std::vector<TokenId> ends_;
};

}  // namespace

std::string new_id(std::string_view prefix) {
  static thread_local std::mt19937_64 generator{std::random_device{}()};
  return fmt::format("{}{:016x}{:08x}", prefix, generator(), generator() >> 32);
}

std::string_view bytes_of(const Tokenizer& tokenizer, TokenId id) {
  return id < tokenizer.size() ? tokenizer.token_bytes(id) : std::string_view();
}

std::string token_text(const Tokenizer& tokenizer, TokenId id) {
  const std::string_view bytes = bytes_of(tokenizer, id);
  std::string text;
  for (size_t at = 0; at < bytes.size();) {
    const utf8::Point point = utf8::decode(bytes.substr(at));
    utf8::append(text, point.value);
    at += point.length;
  }
  return text;
}

Generation::Generation(std::shared_ptr<Exchange> exchange, std::shared_ptr<LoadedModel> model,
                       Plan plan, Metrics& metrics)
    : exchange_(std::move(exchange)),
      plan_(std::move(plan)),
      created_(std::chrono::duration_cast<std::chrono::seconds>(
                   std::chrono::system_clock::now().time_since_epoch())
                   .count()),
      model_(std::move(model)),
      metrics_(metrics) {}

void Generation::start(const std::shared_ptr<Generation>& self) {
  Plan& asked = self->plan_;
  std::vector<Worker::Job> jobs;
  for (size_t prompt = 0; prompt < asked.prompts.size(); ++prompt) {
    for (int64_t sample = 0; sample < asked.best_of; ++sample) {
      const size_t index = jobs.size();
      Request request = asked.base;
      request.ids = asked.prompts[prompt];
      request.stream = static_cast<uint64_t>(sample);
      request.adapter = self->model_->adapter;
      if (asked.automaton) {
        request.constraint = std::make_shared<GrammarConstraint>(asked.automaton, self->tokenizer(),
                                                                 request.stop.ids);
      } else if (asked.min_tokens > 0) {
        request.constraint = std::make_shared<LeastTokens>(asked.min_tokens, request.stop.ids);
      }
      Scheduler::Listener listener;
      listener.token = [self, index](const NewToken& token) { self->on_token(index, token); };
      listener.done = [self, index](Completion done) { self->on_done(index, std::move(done)); };
      jobs.push_back({std::move(request), std::move(listener)});
      self->choices_.emplace_back(asked.reply).prompt = prompt;
    }
  }
  self->open_ = jobs.size();
  if (!asked.ignored.empty()) {
    self->headers_.emplace_back("X-Quern-Ignored",
                                printable(fmt::format("{}", fmt::join(asked.ignored, ", ")), 1000));
  }
  if (asked.stream) {
    HttpResponse head;
    head.content_type = "text/event-stream; charset=utf-8";
    head.headers = {{"Cache-Control", "no-store"}, {"X-Accel-Buffering", "no"}};
    head.headers.insert(head.headers.end(), self->headers_.begin(), self->headers_.end());
    self->exchange_->prepare_stream(std::move(head));
  }
  std::vector<Worker::Id> ids = self->model_->worker.submit(std::move(jobs));
  {
    const std::lock_guard lock(self->mutex_);
    self->jobs_ = std::move(ids);
  }
  // The exchange must not keep what keeps the exchange.
  self->exchange_->on_close([weak = std::weak_ptr(self)] {
    if (const auto alive = weak.lock()) alive->on_close();
  });
}

void Generation::on_close() {
  {
    const std::lock_guard lock(mutex_);
    left_ = true;
  }
  cancel();
}

void Generation::cancel() {
  std::vector<Worker::Id> jobs;
  {
    const std::lock_guard lock(mutex_);
    jobs = jobs_;
  }
  model_->worker.cancel(jobs);
}

void Generation::hold(Choice& choice, TokenId id, const Logprobs& logprobs) {
  // Control tokens stand for no text.
  const size_t length = tokenizer().is_special(id) ? 0 : bytes_of(tokenizer(), id).size();
  choice.held.push_back({id, logprobs, choice.text_bytes, choice.text_bytes + length});
  choice.text_bytes += length;
}

size_t Generation::count_releasable(const Choice& choice, bool at_end) {
  size_t count = choice.released;
  while (count < choice.held.size()) {
    const HeldToken& token = choice.held[count];
    const bool out =
        token.end <= choice.shown_bytes || (at_end && token.begin < choice.shown_bytes);
    if (!out) break;
    ++count;
  }
  return count;
}

Generation::Piece Generation::release(size_t index, std::string_view text,
                                      std::optional<FinishReason> finish) {
  Choice& choice = choices_[index];
  const size_t first = choice.released;
  if (plan_.logprobs) choice.released = count_releasable(choice, finish.has_value());
  return {index, text, {}, first, choice.released, finish};
}

// Reads the piece's text as a part of a reply, for conversations. A control token of plan_.marks is
// read as its name.
void Generation::read_reply(Choice& choice, Piece& piece, std::optional<TokenId> id) {
  std::string text(piece.text);
  if (id) {
    for (const auto& [mark, name] : plan_.marks) {
      if (mark == *id && !text.ends_with(name)) text += name;
    }
  }
  piece.events = choice.reader.put(text);
  if (piece.finish) {
    for (ReplyEvent& event : choice.reader.finish()) piece.events.push_back(std::move(event));
  }
  for (const ReplyEvent& event : piece.events) {
    switch (event.kind) {
      case ReplyEvent::Kind::Reasoning:
        choice.reasoning += event.text;
        break;
      case ReplyEvent::Kind::Text:
        choice.text += event.text;
        break;
      case ReplyEvent::Kind::CallBegin:
        choice.calls.push_back({new_id("call_"), event.text, {}});
        break;
      case ReplyEvent::Kind::CallArguments:
        choice.calls.back().arguments += event.text;
        break;
    }
  }
}

std::string Generation::prompt_text(size_t prompt) const {
  return tokenizer().decode(plan_.prompts[prompt]);
}

void Generation::on_token(size_t index, const NewToken& token) {
  if (failed_) return;
  Choice& choice = choices_[index];
  const auto now = Clock::now();
  const auto seconds = [&](Clock::time_point since) {
    return std::chrono::duration<double>(now - since).count();
  };
  if (choice.begun) {
    metrics_.between_tokens.observe(seconds(choice.last_token));
  } else {
    choice.begun = true;
    metrics_.first_token.observe(seconds(started_));
    if (!std::exchange(first_seen_, true)) {
      exchange_->note("ttft_ms", fmt::format("{:.1f}", 1000 * seconds(started_)));
    }
    if (plan_.stream) stream_begin(index);
  }
  choice.last_token = now;
  ++choice.made;
  choice.shown_bytes += token.text.size();
  // The token that ends a text is not part of it.
  if (plan_.logprobs && !plan_.base.stop.ends(token.id)) hold(choice, token.id, *token.logprobs);
  if (!plan_.stream && plan_.where == Text) return;
  Piece piece =
      plan_.stream ? release(index, token.text, {}) : Piece{index, token.text, {}, 0, 0, {}};
  if (plan_.where != Text) read_reply(choice, piece, token.id);
  if (!plan_.stream) return;
  const bool says = plan_.where == Text ? !piece.text.empty() : !piece.events.empty();
  if (says || piece.first < piece.last) stream_piece(piece);
}

void Generation::on_done(size_t index, Completion completion) {
  Choice& choice = choices_[index];
  if (completion.reason == FinishReason::Failed) {
    fail(completion.failure);
  } else if (completion.reason == FinishReason::Interrupted) {
    bool left = false;
    {
      const std::lock_guard lock(mutex_);
      left = left_;
    }
    if (!left) {
      fail(std::make_exception_ptr(
          ApiException(error_of_status(503, "the server is about to end"))));
    }
  }
  choice.completion = std::move(completion);
  --open_;
  const FinishReason reason = choice.completion.reason;
  if (!failed_ && plan_.stream && reason != FinishReason::Interrupted) {
    if (!choice.begun) stream_begin(index);
    Piece piece = release(index, "", reason);
    if (plan_.where != Text) read_reply(choice, piece, {});
    stream_piece(piece);
  } else if (!failed_ && plan_.where != Text) {
    Piece piece = {index, "", {}, 0, 0, reason};
    read_reply(choice, piece, {});
  }
  if (open_ > 0 || failed_) return;
  const Usage counts = usage();
  exchange_->note("prompt_tokens", std::to_string(counts.prompt));
  exchange_->note("completion_tokens", std::to_string(counts.made));
  exchange_->note("cached_tokens", std::to_string(counts.cached));
  metrics_.request.observe(std::chrono::duration<double>(Clock::now() - started_).count());
  if (plan_.stream) {
    stream_end();
    exchange_->finish();
  } else {
    HttpResponse response;
    response.body = whole_answer();
    response.headers = headers_;
    exchange_->respond(std::move(response));
  }
}

// Answers with the failure and gives the other choices up.
void Generation::fail(std::exception_ptr failure) {
  if (std::exchange(failed_, true)) return;
  const ApiError error = error_of(failure);
  if (exchange_->begun()) {
    stream_failure(error);
    exchange_->finish();
  } else {
    exchange_->respond(error_response(error, error_form(exchange_->request().path)));
  }
  cancel();
}

Generation::Usage Generation::usage() const {
  Usage sum;
  for (const auto& ids : plan_.prompts) sum.prompt += static_cast<int64_t>(ids.size());
  for (size_t i = 0; i < choices_.size(); ++i) {
    sum.made += choices_[i].made;
    // A prompt counts once, however many choices it has; so does what was there of it.
    if (i == 0 || choices_[i].prompt != choices_[i - 1].prompt) {
      sum.cached += choices_[i].completion.cached_tokens;
    }
  }
  return sum;
}

double finite(float logprob) { return std::max(static_cast<double>(logprob), -9999.0); }

nlohmann::ordered_json Generation::timings() const {
  const Usage counts = usage();
  double prompt_ms = 0, predicted_ms = 0;
  for (const Choice& choice : choices_) {
    prompt_ms = std::max(prompt_ms, 1000 * choice.completion.prefill_seconds);
    predicted_ms = std::max(predicted_ms, 1000 * choice.completion.decode_seconds);
  }
  const int64_t fed = counts.prompt - counts.cached;
  const auto rate = [](int64_t tokens, double ms) {
    return ms > 0 ? 1000 * static_cast<double>(tokens) / ms : 0;
  };
  return {{"cache_n", counts.cached},
          {"prompt_n", fed},
          {"prompt_ms", prompt_ms},
          {"prompt_per_second", rate(fed, prompt_ms)},
          {"predicted_n", counts.made},
          {"predicted_ms", predicted_ms},
          {"predicted_per_second", rate(counts.made, predicted_ms)}};
}

}  // namespace quern::serve
