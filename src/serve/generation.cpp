#include "serve/generation.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "core/error.h"
#include "core/json.h"
#include "core/utf8.h"
#include "serve/api_error.h"

namespace quern::serve {
namespace {

using nlohmann::ordered_json;

std::string_view bytes_of(const Tokenizer& tokenizer, TokenId id) {
  return id < tokenizer.size() ? tokenizer.token_bytes(id) : std::string_view();
}

ordered_json byte_list(std::string_view bytes) {
  ordered_json list = ordered_json::array();
  for (const char byte : bytes) list.push_back(static_cast<unsigned char>(byte));
  return list;
}

// Completions' name of a token: its text, or "bytes:\xe4\xbd" for what is no UTF-8.
std::string token_name(const Tokenizer& tokenizer, TokenId id) {
  const std::string_view bytes = bytes_of(tokenizer, id);
  if (utf8::is_valid(bytes)) return std::string(bytes);
  std::string name = "bytes:";
  for (const char byte : bytes) name += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  return name;
}

// JSON has no infinity; a token that was masked has none of the probability.
double finite(float logprob) { return std::max(static_cast<double>(logprob), -9999.0); }

int64_t characters(std::string_view bytes) {
  return std::count_if(bytes.begin(), bytes.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

std::string new_id(const char* prefix) {
  static thread_local std::mt19937_64 generator{std::random_device{}()};
  return fmt::format("{}-{:016x}{:08x}", prefix, generator(), generator() >> 32);
}

const char* finish_name(FinishReason reason) {
  return reason == FinishReason::Stop ? "stop" : "length";
}

}  // namespace

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
      model_(std::move(model)),
      plan_(std::move(plan)),
      metrics_(metrics),
      id_(new_id(plan_.where == Chat ? "chatcmpl" : "cmpl")),
      created_(std::chrono::duration_cast<std::chrono::seconds>(
                   std::chrono::system_clock::now().time_since_epoch())
                   .count()) {}

void Generation::start(std::shared_ptr<Exchange> exchange, std::shared_ptr<LoadedModel> model,
                       Plan plan, Metrics& metrics) {
  const auto self =
      std::make_shared<Generation>(std::move(exchange), std::move(model), std::move(plan), metrics);
  Plan& asked = self->plan_;
  std::vector<Worker::Job> jobs;
  for (size_t prompt = 0; prompt < asked.prompts.size(); ++prompt) {
    for (int64_t sample = 0; sample < asked.best_of; ++sample) {
      const size_t index = jobs.size();
      Request request = asked.base;
      request.ids = asked.prompts[prompt];
      request.stream = static_cast<uint64_t>(sample);
      if (asked.automaton) {
        request.constraint = std::make_shared<GrammarConstraint>(
            asked.automaton, self->model_->model.tokenizer(), request.stop.ids);
      }
      Scheduler::Listener listener;
      listener.token = [self, index](const NewToken& token) { self->on_token(index, token); };
      listener.done = [self, index](Completion done) { self->on_done(index, std::move(done)); };
      jobs.push_back({std::move(request), std::move(listener)});
      self->choices_.emplace_back().prompt = prompt;
    }
  }
  self->open_ = jobs.size();
  if (asked.stream) {
    HttpResponse head;
    head.content_type = "text/event-stream; charset=utf-8";
    head.headers = {{"Cache-Control", "no-store"}, {"X-Accel-Buffering", "no"}};
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
  std::vector<Worker::Id> jobs;
  {
    const std::lock_guard lock(mutex_);
    left_ = true;
    jobs = jobs_;
  }
  model_->worker.cancel(jobs);
}

void Generation::hold(Choice& choice, TokenId id, const Logprobs& logprobs) {
  const Tokenizer& tokenizer = model_->model.tokenizer();
  // Control tokens stand for no text.
  const size_t length = tokenizer.is_special(id) ? 0 : bytes_of(tokenizer, id).size();
  choice.held.push_back({id, logprobs, choice.text_bytes, choice.text_bytes + length});
  choice.text_bytes += length;
}

// How many of the held tokens may be shown: those whose text is out. At the end also one of whose
// text a part is.
size_t Generation::count_releasable(const Choice& choice, bool at_end) const {
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

ordered_json Generation::release(Choice& choice, bool at_end) {
  if (!plan_.logprobs) return nullptr;
  const size_t begin = choice.released, end = count_releasable(choice, at_end);
  choice.released = end;
  return begin == end ? ordered_json() : logprobs_json(choice, begin, end);
}

ordered_json Generation::logprobs_json(Choice& choice, size_t begin, size_t end) const {
  const Tokenizer& tokenizer = model_->model.tokenizer();
  if (plan_.where == Chat) {
    ordered_json content = ordered_json::array();
    const auto entry = [&](TokenId id, float logprob) {
      return ordered_json{{"token", token_text(tokenizer, id)},
                          {"logprob", finite(logprob)},
                          {"bytes", byte_list(bytes_of(tokenizer, id))}};
    };
    for (size_t i = begin; i < end; ++i) {
      const HeldToken& token = choice.held[i];
      ordered_json item = entry(token.id, token.logprobs.chosen);
      item["top_logprobs"] = ordered_json::array();
      for (const TokenLogprob& other : token.logprobs.top) {
        item["top_logprobs"].push_back(entry(other.id, other.logprob));
      }
      content.push_back(std::move(item));
    }
    return {{"content", std::move(content)}, {"refusal", nullptr}};
  }
  ordered_json out = {{"tokens", ordered_json::array()},
                      {"token_logprobs", ordered_json::array()},
                      {"top_logprobs", ordered_json::array()},
                      {"text_offset", ordered_json::array()}};
  const auto add = [&](TokenId id, const Logprobs* logprobs) {
    out["tokens"].push_back(token_name(tokenizer, id));
    out["text_offset"].push_back(choice.offset);
    if (!tokenizer.is_special(id)) choice.offset += characters(bytes_of(tokenizer, id));
    if (logprobs == nullptr) {  // of the first there is none
      out["token_logprobs"].push_back(nullptr);
      out["top_logprobs"].push_back(nullptr);
      return;
    }
    out["token_logprobs"].push_back(finite(logprobs->chosen));
    ordered_json top = ordered_json::object();
    for (const TokenLogprob& other : logprobs->top) {
      top[token_name(tokenizer, other.id)] = finite(other.logprob);
    }
    out["top_logprobs"].push_back(std::move(top));
  };
  if (begin == 0 && plan_.prompt_logprobs) {
    const auto& ids = plan_.prompts[choice.prompt];
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto& known = choice.completion.prompt_logprobs;
      add(ids[i], i == 0 || i > known.size() ? nullptr : &known[i - 1]);
    }
  } else if (begin == 0 && plan_.echo) {
    choice.offset = characters(prompt_text(choice.prompt));
  }
  for (size_t i = begin; i < end; ++i) add(choice.held[i].id, &choice.held[i].logprobs);
  return out;
}

std::string Generation::prompt_text(size_t prompt) const {
  return model_->model.tokenizer().decode(plan_.prompts[prompt]);
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
    if (plan_.stream) send_begin(index);
  }
  choice.last_token = now;
  choice.shown_bytes += token.text.size();
  // The token that ends a text is not part of it.
  if (plan_.logprobs && !plan_.base.stop.ends(token.id)) hold(choice, token.id, *token.logprobs);
  if (!plan_.stream) return;
  const ordered_json logprobs = release(choice, false);
  if (token.text.empty() && logprobs.is_null()) return;
  send_piece(index, token.text, logprobs, nullptr);
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
  choice.done = true;
  choice.completion = std::move(completion);
  --open_;
  if (!failed_ && plan_.stream && choice.completion.reason != FinishReason::Interrupted) {
    if (!choice.begun) send_begin(index);
    const ordered_json rest = release(choice, true);
    send_piece(index, "", rest, finish_name(choice.completion.reason));
  }
  if (open_ > 0 || failed_) return;
  note_usage();
  metrics_.request.observe(std::chrono::duration<double>(Clock::now() - started_).count());
  if (plan_.stream) {
    end_stream();
  } else {
    respond();
  }
}

// Answers with the failure and gives the other choices up.
void Generation::fail(std::exception_ptr failure) {
  if (std::exchange(failed_, true)) return;
  const ApiError error = error_of(failure);
  if (exchange_->begun()) {
    exchange_->write("data: " + error_body(error) + "\n\n");
    exchange_->finish();
  } else {
    exchange_->respond(error_response(error));
  }
  std::vector<Worker::Id> jobs;
  {
    const std::lock_guard lock(mutex_);
    jobs = jobs_;
  }
  model_->worker.cancel(jobs);
}

ordered_json Generation::envelope(const char* object) const {
  ordered_json out = {{"id", id_},
                      {"object", object},
                      {"created", created_},
                      {"model", plan_.model},
                      {"system_fingerprint", "quern-" QUERN_VERSION},
                      {"seed", plan_.base.sampling.seed}};
  return out;
}

ordered_json Generation::usage() const {
  int64_t prompt = 0, cached = 0, made = 0;
  for (const auto& ids : plan_.prompts) prompt += static_cast<int64_t>(ids.size());
  for (size_t i = 0; i < choices_.size(); ++i) {
    made += static_cast<int64_t>(choices_[i].completion.ids.size());
    // A prompt counts once, however many choices it has; so does what was there of it.
    if (i == 0 || choices_[i].prompt != choices_[i - 1].prompt) {
      cached += choices_[i].completion.cached_tokens;
    }
  }
  return {{"prompt_tokens", prompt},
          {"completion_tokens", made},
          {"total_tokens", prompt + made},
          {"prompt_tokens_details", {{"cached_tokens", cached}}}};
}

void Generation::note_usage() {
  const ordered_json counts = usage();
  exchange_->note("prompt_tokens", dump(counts["prompt_tokens"]));
  exchange_->note("completion_tokens", dump(counts["completion_tokens"]));
  exchange_->note("cached_tokens", dump(counts["prompt_tokens_details"]["cached_tokens"]));
}

void Generation::send(const ordered_json& event) {
  exchange_->write("data: " + dump(event) + "\n\n");
}

void Generation::send_begin(size_t index) {
  if (plan_.where == Chat) {
    ordered_json event = envelope("chat.completion.chunk");
    event["choices"] = {{{"index", index},
                         {"delta", {{"role", "assistant"}, {"content", ""}}},
                         {"logprobs", nullptr},
                         {"finish_reason", nullptr}}};
    if (plan_.include_usage) event["usage"] = nullptr;
    send(event);
  } else if (plan_.echo && !plan_.prompt_logprobs) {
    send_piece(index, prompt_text(choices_[index].prompt), nullptr, nullptr);
  }
}

void Generation::send_piece(size_t index, const std::string& text, const ordered_json& logprobs,
                            const char* finish) {
  ordered_json choice = {{"index", index}};
  if (plan_.where == Chat) {
    choice["delta"] = finish == nullptr ? ordered_json{{"content", text}} : ordered_json::object();
  } else {
    choice["text"] = text;
  }
  choice["logprobs"] = logprobs;
  choice["finish_reason"] = finish == nullptr ? ordered_json() : ordered_json(finish);
  ordered_json event = envelope(plan_.where == Chat ? "chat.completion.chunk" : "text_completion");
  event["choices"] = ordered_json::array({std::move(choice)});
  if (plan_.include_usage) event["usage"] = nullptr;
  send(event);
}

void Generation::end_stream() {
  if (plan_.include_usage) {
    ordered_json event =
        envelope(plan_.where == Chat ? "chat.completion.chunk" : "text_completion");
    event["choices"] = ordered_json::array();
    event["usage"] = usage();
    send(event);
  }
  exchange_->write("data: [DONE]\n\n");
  exchange_->finish();
}

void Generation::respond() {
  ordered_json out = envelope(plan_.where == Chat ? "chat.completion" : "text_completion");
  out["choices"] = ordered_json::array();
  const auto per_prompt = static_cast<size_t>(plan_.best_of);
  for (size_t first = 0; first < choices_.size(); first += per_prompt) {
    std::vector<size_t> order(per_prompt);
    std::iota(order.begin(), order.end(), first);
    if (plan_.best_of > plan_.n) {
      const auto mean = [&](size_t index) {
        const auto& logprobs = choices_[index].completion.logprobs;
        double sum = 0;
        for (const Logprobs& token : logprobs) sum += finite(token.chosen);
        return logprobs.empty() ? 0 : sum / static_cast<double>(logprobs.size());
      };
      std::stable_sort(order.begin(), order.end(),
                       [&](size_t a, size_t b) { return mean(a) > mean(b); });
      order.resize(static_cast<size_t>(plan_.n));
    }
    for (const size_t index : order) {
      Choice& choice = choices_[index];
      ordered_json entry = {{"index", out["choices"].size()}};
      ordered_json logprobs = nullptr;
      if (plan_.logprobs) {
        const size_t end = count_releasable(choice, true);
        logprobs = logprobs_json(choice, 0, end);
      }
      if (plan_.where == Chat) {
        entry["message"] = {
            {"role", "assistant"}, {"content", choice.completion.text}, {"refusal", nullptr}};
      } else {
        entry["text"] =
            (plan_.echo ? prompt_text(choice.prompt) : std::string()) + choice.completion.text;
      }
      entry["logprobs"] = std::move(logprobs);
      entry["finish_reason"] = finish_name(choice.completion.reason);
      out["choices"].push_back(std::move(entry));
    }
  }
  out["usage"] = usage();
  HttpResponse response;
  response.body = dump(out);
  exchange_->respond(std::move(response));
}

}  // namespace quern::serve
