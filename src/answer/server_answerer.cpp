// Answers of an OpenAI-compatible server: completions and chat completions.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "answer/answerer.h"
#include "core/error.h"
#include "core/json.h"
#include "core/ordered_json.h"

namespace quern {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// A failure that another try may not meet.
bool may_pass(const net::HttpReply& reply) {
  return reply.status == 429 || reply.status == 502 || reply.status == 503 || reply.status == 504 ||
         !reply.failure.empty();
}

// Characters, which text_offset counts.
int64_t characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

// Leaves out what is not set, so that the server's own defaults hold.
void put_sampling(ordered_json& body, const CompleteRequest& request) {
  const SamplingChoice& s = request.sampling;
  const auto put = [&](const char* name, const auto& value) {
    if (value) body[name] = *value;
  };
  put("temperature", s.temperature);
  put("top_p", s.top_p);
  put("top_k", s.top_k);
  put("min_p", s.min_p);
  put("typical_p", s.typical_p);
  put("repetition_penalty", s.repetition_penalty);
  put("frequency_penalty", s.frequency_penalty);
  put("presence_penalty", s.presence_penalty);
  put("no_repeat_ngram_size", s.no_repeat_ngram);
  if (s.greedy.value_or(false)) body["temperature"] = 0;
  if (s.seed) body["seed"] = *s.seed + request.stream;
  for (const auto& [id, bias] : s.logit_bias) body["logit_bias"][std::to_string(id)] = bias;
  if (!request.stop.empty()) body["stop"] = request.stop;
  if (request.ignore_eos) body["ignore_eos"] = true;
  if (request.max_new_tokens > 0) body["max_tokens"] = request.max_new_tokens;
  if (request.thinking) {
    body["chat_template_kwargs"] = {{"enable_thinking", *request.thinking}};
  }
}

// Throws BadInput or Unsupported for an answer that tells nothing of the continuation.
Likelihood read_likelihood(const LikelihoodRequest& request, const net::HttpReply& reply,
                           bool with_token) {
  Likelihood out;
  const Json json = Json::parse(reply.body, "the server's answer");
  const Json choices = json.at("choices");
  if (choices.size() == 0) json.fail("holds no choices");
  const auto logprobs = choices[0].find("logprobs");
  if (!logprobs || !logprobs->has("token_logprobs")) {
    throw Error(
        Kind::Unsupported, "the server gives no log-probabilities of prompts",
        "it must answer /v1/completions with echo and logprobs, as Quern's own and vLLM's do");
  }
  const std::vector<Json> values = logprobs->at("token_logprobs").items();
  size_t end = values.size();
  if (with_token && end > 0) --end;  // the token that was made
  size_t begin = request.context_ids.size();
  if (request.continuation_ids.empty()) {
    // Spaces at the context's end belong to the continuation.
    std::string_view context = request.context;
    context = context.substr(0, context.find_last_not_of(" \t\n\r\v\f") + 1);
    const int64_t boundary = characters(context);
    const std::vector<Json> offsets = logprobs->at("text_offset").items();
    begin = 0;
    while (begin < std::min(end, offsets.size()) && offsets[begin].integer() < boundary) ++begin;
  }
  begin = std::max<size_t>(begin, 1);  // the first token has none
  if (begin >= end || (begin == 1 && end == 1)) {
    throw Error(Kind::Unsupported,
                fmt::format("the server's answer has {} log-probabilities, the context alone {} "
                            "tokens",
                            end, begin),
                "it does not echo the prompt");
  }
  const auto tops = logprobs->find("top_logprobs");
  out.context_tokens = static_cast<int64_t>(begin);
  out.greedy = tops.has_value();
  for (size_t i = begin; i < end; ++i) {
    const double value = values[i].number();
    out.logprobs.push_back(static_cast<float>(value));
    out.sum += value;
    if (!tops || i >= tops->size() || (*tops)[i].is_null()) {
      out.greedy = false;
      continue;
    }
    for (const auto& [token, top] : (*tops)[i].members()) out.greedy &= value >= top.number();
  }
  if (const auto usage = json.find("usage")) {
    const auto details = usage->find("prompt_tokens_details");
    if (details) out.cached_tokens = details->integer_or("cached_tokens", 0);
  }
  out.known = true;
  return out;
}

class ServerAnswerer : public Answerer {
 public:
  explicit ServerAnswerer(const ServerAnswererOptions& options)
      : options_(options), client_(options.client), model_(options.model) {
    // Asks even where the model is named: a wrong address or key fails here, before any request.
    const net::HttpReply reply = client_.send({.method = "GET", .path = path("/models")});
    // Not every server lists its models; a named one can do without.
    if (!model_.empty() && (reply.status == 404 || reply.status == 405)) return;
    if (!reply.ok()) throw Error(Kind::Failed, reply.problem());
    const Json list = Json::parse(reply.body, "the list of models").at("data");
    if (!model_.empty()) return;
    if (list.size() == 0) throw Error(Kind::Failed, client_.url() + " serves no model");
    model_ = list[0].at("id").string();
  }

  std::string name() const override {
    return fmt::format("{} at {}", printable(model_, 100), client_.url());
  }

  bool offers(const OrderedJson&) const override { return true; }
  bool keeps_grammars() const override { return false; }

  std::vector<Answer> complete(std::span<const CompleteRequest> requests,
                               const CompleteEvents& events,
                               const std::atomic<bool>* cancel) override;
  std::vector<Likelihood> log_likelihood(std::span<const LikelihoodRequest> requests,
                                         const LikelihoodDone& done,
                                         const std::atomic<bool>* cancel) override;

 private:
  struct Reading;

  // Addresses are given with and without /v1.
  std::string path(const char* route) const {
    std::string_view url = client_.url();
    while (url.ends_with('/')) url.remove_suffix(1);
    return (url.ends_with("/v1") ? "" : "/v1") + std::string(route);
  }

  ordered_json body_of(const CompleteRequest& request) const;
  ordered_json body_of(const LikelihoodRequest& request, bool with_token) const;

  // Makes `count` calls, `connections` at a time. Repeats those that failed for reasons that may
  // pass, up to the number of tries and while `fresh` holds (nothing of the answer was shown). Calls
  // `over` with each final reply, and repeats the call where that returns false.
  void ask(size_t count, const std::function<net::HttpCall(size_t)>& call_of,
           const std::function<bool(size_t)>& fresh,
           const std::function<bool(size_t, net::HttpReply&)>& over,
           const std::atomic<bool>* cancel);

  ServerAnswererOptions options_;
  net::HttpClient client_;
  std::string model_;
  bool echo_needs_token_ = false;  // the server refused max_tokens 0
};

ordered_json ServerAnswerer::body_of(const CompleteRequest& request) const {
  ordered_json out = {{"model", model_}};
  if (!request.messages.empty()) {
    out["messages"] = ordered_json::array();
    for (const Message& message : request.messages) {
      if (message.role == ChatRole::System && message.text().empty()) continue;
      out["messages"].push_back(ordered_json::parse(python_dumps(to_json(message))));
    }
  } else if (!request.ids.empty()) {
    out["prompt"] = request.ids;
  } else {
    out["prompt"] = request.prompt;
  }
  put_sampling(out, request);
  if (!request.tools.is_null()) {
    out["tools"] = ordered_json::parse(python_dumps(request.tools));
  }
  if (request.continue_last) {  // as Quern's own server and vLLM take it
    out["add_generation_prompt"] = false;
    out["continue_final_message"] = true;
  }
  if (options_.stream) {
    out["stream"] = true;
    out["stream_options"] = {{"include_usage", true}};
  }
  return out;
}

ordered_json ServerAnswerer::body_of(const LikelihoodRequest& request, bool with_token) const {
  ordered_json out = {{"model", model_}};
  if (!request.continuation_ids.empty()) {
    std::vector<TokenId> ids = request.context_ids;
    ids.insert(ids.end(), request.continuation_ids.begin(), request.continuation_ids.end());
    out["prompt"] = ids;
  } else {
    out["prompt"] = request.context + request.continuation;
  }
  out["max_tokens"] = with_token ? 1 : 0;
  out["temperature"] = 0;
  out["logprobs"] = 1;
  out["echo"] = true;
  return out;
}

void ServerAnswerer::ask(size_t count, const std::function<net::HttpCall(size_t)>& call_of,
                         const std::function<bool(size_t)>& fresh,
                         const std::function<bool(size_t, net::HttpReply&)>& over,
                         const std::atomic<bool>* cancel) {
  struct Again {
    size_t index;
    std::chrono::milliseconds pause;
  };
  std::vector<int> tries(count);
  std::vector<Again> again;
  size_t next = 0;
  const auto call_for = [&](size_t i, std::chrono::milliseconds pause) {
    net::HttpCall call = call_of(i);
    call.pause = pause;
    call.done = [&, i](net::HttpReply reply) {
      const bool cancelled = cancel != nullptr && cancel->load(std::memory_order_relaxed);
      const bool worth = !cancelled && may_pass(reply) && fresh(i) && ++tries[i] < options_.tries;
      if (worth) {
        const double seconds = reply.retry_after(0.5 * std::exp2(tries[i]), 60);
        again.push_back({i, std::chrono::milliseconds(static_cast<int64_t>(1000 * seconds))});
      } else if (!over(i, reply)) {
        again.push_back({i, {}});
      }
    };
    return call;
  };
  // A call may have to be repeated after the last connection has retired: hence the loop.
  while (next < count || !again.empty()) {
    client_.run(
        static_cast<int>(std::min<size_t>(static_cast<size_t>(options_.connections),
                                          count - next + again.size())),
        [&]() -> std::optional<net::HttpCall> {
          if (!again.empty()) {
            const Again item = again.back();
            again.pop_back();
            return call_for(item.index, item.pause);
          }
          if (next == count) return std::nullopt;
          return call_for(next++, {});
        },
        cancel);
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) break;
  }
  // A cancellation leaves calls unmade.
  net::HttpReply never;
  never.failure = "interrupted";
  for (; next < count; ++next) over(next, never);
  for (const Again& item : again) over(item.index, never);
}

// An answer as it is read: from the events of a stream, or from one JSON value.
struct ServerAnswerer::Reading {
  size_t index;
  Answer* answer;
  const CompleteEvents* events;
  Clock::time_point begun = Clock::now(), first = begun;
  bool has_text = false;
  int64_t pieces = 0;
  std::string failure;

  void text(std::string_view piece, std::string& into,
            const std::function<void(size_t, std::string_view)>& event) {
    if (piece.empty()) return;
    if (!std::exchange(has_text, true)) first = Clock::now();
    ++pieces;
    into += piece;
    if (event) event(index, piece);
  }

  // A chunk of a stream ("delta") or a whole answer ("message", or "text" of completions).
  void object(const Json& json) {
    if (const auto error = json.find("error")) {
      failure = printable(error->is_object()   ? error->string_or("message", "the server failed")
                          : error->is_string() ? error->string()
                                               : "failed",
                          1000);
      return;
    }
    if (const auto usage = json.find("usage")) {
      answer->prompt_tokens = usage->integer_or("prompt_tokens", 0);
      answer->new_tokens = usage->integer_or("completion_tokens", 0);
      const auto details = usage->find("prompt_tokens_details");
      if (details) answer->cached_tokens = details->integer_or("cached_tokens", 0);
    }
    const auto choices = json.find("choices");
    if (!choices) return;
    for (const Json& choice : choices->items()) {
      const auto delta = choice.has("delta") ? choice.find("delta") : choice.find("message");
      const Json& holder = delta ? *delta : choice;
      for (const char* name : {"reasoning_content", "reasoning"}) {
        if (!holder.has(name)) continue;
        text(holder.string_or(name, ""), answer->reasoning, events->reasoning);
        break;
      }
      text(holder.string_or(delta ? "content" : "text", ""), answer->text, events->text);
      if (const auto calls = holder.find("tool_calls")) add_calls(*calls);
      if (const auto reason = choice.find("finish_reason")) {
        answer->finish = reason->string() == "length" ? FinishReason::Length : FinishReason::Stop;
      }
    }
  }

  // Whole calls, or pieces of them that name their place.
  void add_calls(const Json& calls) {
    constexpr int64_t kMostCalls = 128;
    const std::vector<Json> items = calls.items();
    for (size_t i = 0; i < items.size(); ++i) {
      const auto at = static_cast<size_t>(
          items[i].integer_or("index", static_cast<int64_t>(i), 0, kMostCalls - 1));
      if (at > answer->calls.size()) items[i].fail("skips a place");
      if (at == answer->calls.size()) {
        answer->calls.emplace_back();
        answer->calls.back().arguments = OrderedJson::of_string({});
        if (!std::exchange(has_text, true)) first = Clock::now();
      }
      ToolCall& call = answer->calls[at];
      call.id += items[i].string_or("id", "");
      if (const auto function = items[i].find("function")) {
        call.name += function->string_or("name", "");
        call.arguments.text += function->string_or("arguments", "");
      }
    }
  }

  // An error in a stream's middle has status 200.
  void end(const net::HttpReply& reply) {
    if (failure.empty() && reply.ok() && !reply.body.empty()) {
      try {
        object(Json::parse(reply.body, "the server's answer"));
        if (!has_text && answer->finish == FinishReason::Failed && failure.empty()) {
          failure = "the server's answer holds no choices";
        }
      } catch (const Error& error) {
        failure = error.line();
      }
    }
    if (failure.empty() && !reply.ok()) failure = reply.problem();
    if (failure == "interrupted") {
      answer->finish = FinishReason::Interrupted;
    } else if (!failure.empty()) {
      answer->finish = FinishReason::Failed;
      answer->failure = failure;
    } else if (answer->finish == FinishReason::Failed) {
      answer->finish = FinishReason::Stop;  // it never said why it ended
    }
    if (answer->new_tokens == 0) answer->new_tokens = pieces;
    answer->first_seconds = seconds_between(begun, first);
    answer->seconds = seconds_between(begun, Clock::now());
    if (events->done) events->done(index, *answer);
  }
};

std::vector<Answer> ServerAnswerer::complete(std::span<const CompleteRequest> requests,
                                             const CompleteEvents& events,
                                             const std::atomic<bool>* cancel) {
  std::vector<Answer> answers(requests.size());
  std::vector<Reading> readings(requests.size());
  ask(
      requests.size(),
      [&](size_t i) {
        net::HttpCall call;
        call.path = path(requests[i].messages.empty() ? "/completions" : "/chat/completions");
        call.body = dump(body_of(requests[i]));
        answers[i] = {};
        readings[i] = {.index = i, .answer = &answers[i], .events = &events};
        call.on_event = [&reading = readings[i]](std::string_view data) {
          if (data == "[DONE]") return true;  // the connection is of use still
          try {
            reading.object(Json::parse(data, "the server's event"));
          } catch (const Error& error) {
            reading.failure = error.line();
          }
          return reading.failure.empty();
        };
        return call;
      },
      [&](size_t i) { return !readings[i].has_text; },
      [&](size_t i, net::HttpReply& reply) {
        readings[i].answer = &answers[i];
        readings[i].events = &events;
        readings[i].index = i;
        readings[i].end(reply);
        return true;
      },
      cancel);
  return answers;
}

std::vector<Likelihood> ServerAnswerer::log_likelihood(std::span<const LikelihoodRequest> requests,
                                                       const LikelihoodDone& done,
                                                       const std::atomic<bool>* cancel) {
  std::vector<Likelihood> out(requests.size());
  std::vector<char> with_token(requests.size());  // asked for one new token too
  ask(
      requests.size(),
      [&](size_t i) {
        with_token[i] = echo_needs_token_;
        net::HttpCall call;
        call.path = path("/completions");
        call.body = dump(body_of(requests[i], echo_needs_token_));
        return call;
      },
      [](size_t) { return true; },
      [&](size_t i, net::HttpReply& reply) {
        const bool refused = reply.status == 400 || reply.status == 422;
        // Some servers want at least one new token beside the echo.
        if (refused && !with_token[i] && reply.problem().find("max_tokens") != std::string::npos) {
          echo_needs_token_ = true;
          return false;
        }
        try {
          if (reply.failure == "interrupted") throw Error(Kind::Interrupted, "interrupted");
          if (!reply.ok()) throw Error(Kind::Failed, reply.problem());
          out[i] = read_likelihood(requests[i], reply, with_token[i] != 0);
        } catch (const Error& failure) {
          out[i] = {};
          out[i].failure = failure.line();
          out[i].failure_kind = failure.kind();
        }
        if (done) done(i, out[i]);
        return true;
      },
      cancel);
  return out;
}

}  // namespace

std::unique_ptr<Answerer> make_server_answerer(const ServerAnswererOptions& options) {
  return std::make_unique<ServerAnswerer>(options);
}

}  // namespace quern
