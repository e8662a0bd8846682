// The answers of chat completions.
#include "core/json.h"
#include "serve/openai_answer.h"

namespace quern::serve {
namespace {

using nlohmann::ordered_json;

ordered_json byte_list(std::string_view bytes) {
  ordered_json list = ordered_json::array();
  for (const char byte : bytes) list.push_back(static_cast<unsigned char>(byte));
  return list;
}

class ChatAnswer : public OpenAiAnswer {
 public:
  using OpenAiAnswer::OpenAiAnswer;

 private:
  static const char* finish_name(const Choice& choice, FinishReason reason) {
    if (reason != FinishReason::Stop) return "length";
    return calls_tools(choice) ? "tool_calls" : "stop";
  }
  ordered_json logprobs_json(const Choice& choice, size_t begin, size_t end) const;
  // What is wrong with each call; null where nothing is wrong with any.
  ordered_json call_problems(const Choice& choice) const {
    ordered_json list = ordered_json::array();
    bool any = false;
    for (const Call& call : choice.calls) {
      const std::string problem = call_problem(plan_.tools, call.name, call.arguments);
      any |= !problem.empty();
      list.push_back(problem.empty() ? ordered_json() : ordered_json(problem));
    }
    return any ? list : ordered_json();
  }

  void send_delta(size_t index, ordered_json delta, ordered_json logprobs, ordered_json finish) {
    ordered_json problems;
    if (!finish.is_null()) problems = call_problems(choices_[index]);
    ordered_json choice = {{"index", index},
                           {"delta", std::move(delta)},
                           {"logprobs", std::move(logprobs)},
                           {"finish_reason", std::move(finish)}};
    if (!problems.is_null()) choice["tool_call_problems"] = std::move(problems);
    send_choice(std::move(choice));
  }

  void stream_begin(size_t index) override {
    send_delta(index, {{"role", "assistant"}, {"content", ""}}, nullptr, nullptr);
  }

  // An event says one thing; the log-probabilities go with the first.
  void stream_piece(const Piece& piece) override {
    const Choice& choice = choices_[piece.choice];
    ordered_json logprobs;
    if (piece.first < piece.last) logprobs = logprobs_json(choice, piece.first, piece.last);
    size_t call = choice.calls.size();
    for (const ReplyEvent& event : piece.events) {
      if (event.kind == ReplyEvent::Kind::CallBegin) --call;
    }
    const auto of_call = [&](ordered_json function, bool begins) {
      ordered_json entry = {{"index", call - 1}};
      if (begins) {
        entry["id"] = choice.calls[call - 1].id;
        entry["type"] = "function";
      }
      entry["function"] = std::move(function);
      return ordered_json{{"tool_calls", ordered_json::array({std::move(entry)})}};
    };
    for (const ReplyEvent& event : piece.events) {
      ordered_json delta;
      switch (event.kind) {
        case ReplyEvent::Kind::Reasoning:
          delta = {{"reasoning_content", event.text}};
          break;
        case ReplyEvent::Kind::Text:
          delta = {{"content", event.text}};
          break;
        case ReplyEvent::Kind::CallBegin:
          ++call;
          delta = of_call({{"name", event.text}, {"arguments", ""}}, true);
          break;
        case ReplyEvent::Kind::CallArguments:
          delta = of_call({{"arguments", event.text}}, false);
          break;
      }
      send_delta(piece.choice, std::move(delta), std::exchange(logprobs, nullptr), nullptr);
    }
    if (piece.finish) {
      send_delta(piece.choice, ordered_json::object(), std::move(logprobs),
                 finish_name(choice, *piece.finish));
    } else if (piece.events.empty() && !logprobs.is_null()) {
      send_delta(piece.choice, ordered_json::object(), std::move(logprobs), nullptr);
    }
  }

  std::string whole_answer() override;
};

ordered_json ChatAnswer::logprobs_json(const Choice& choice, size_t begin, size_t end) const {
  const auto entry = [&](TokenId id, float logprob) {
    return ordered_json{{"token", token_text(tokenizer(), id)},
                        {"logprob", finite(logprob)},
                        {"bytes", byte_list(bytes_of(tokenizer(), id))}};
  };
  ordered_json content = ordered_json::array();
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

std::string ChatAnswer::whole_answer() {
  ordered_json choices = ordered_json::array();
  for (const Choice& choice : choices_) {
    ordered_json message = {{"role", "assistant"}};
    message["content"] =
        choice.text.empty() && calls_tools(choice) ? ordered_json() : ordered_json(choice.text);
    message["refusal"] = nullptr;
    if (!choice.reasoning.empty()) message["reasoning_content"] = choice.reasoning;
    for (const Call& call : choice.calls) {
      message["tool_calls"].push_back(
          {{"id", call.id},
           {"type", "function"},
           {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
    }
    choices.push_back(
        {{"index", choices.size()},
         {"message", std::move(message)},
         {"logprobs", plan_.logprobs ? logprobs_json(choice, 0, count_releasable(choice, true))
                                     : ordered_json()},
         {"finish_reason", finish_name(choice, choice.completion.reason)}});
    ordered_json problems = call_problems(choice);
    if (!problems.is_null()) choices.back()["tool_call_problems"] = std::move(problems);
  }
  return whole_body(std::move(choices));
}

}  // namespace

std::shared_ptr<Generation> make_chat(std::shared_ptr<Exchange> exchange,
                                      std::shared_ptr<LoadedModel> model, Plan plan,
                                      Metrics& metrics) {
  return std::make_shared<ChatAnswer>(std::move(exchange), std::move(model), std::move(plan),
                                      metrics);
}

}  // namespace quern::serve
