// The answers of /v1/responses: items (reasoning, a message, calls), whole or as events that each
// have a type and a number.
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "serve/generation.h"

namespace quern::serve {
namespace {

using nlohmann::ordered_json;

class ResponseAnswer : public Generation {
 public:
  using Generation::Generation;

 private:
  enum class Kind { None, Reasoning, Message, Call };

  static ordered_json part(const std::string& text) {
    return {{"type", "output_text"},
            {"text", text},
            {"annotations", ordered_json::array()},
            {"logprobs", ordered_json::array()}};
  }
  ordered_json message(const char* status, ordered_json content) const {
    return {{"id", message_id_},
            {"type", "message"},
            {"status", status},
            {"role", "assistant"},
            {"content", std::move(content)}};
  }
  ordered_json reasoning(ordered_json content) const {
    return {{"id", reasoning_id_},
            {"type", "reasoning"},
            {"summary", ordered_json::array()},
            {"content", std::move(content)}};
  }
  static ordered_json thought(const std::string& text) {
    return ordered_json::array({{{"type", "reasoning_text"}, {"text", text}}});
  }
  static ordered_json call_item(const Call& call, const char* status, const std::string& text) {
    return {{"id", "fc_" + call.id.substr(5)},
            {"type", "function_call"},
            {"status", status},
            {"call_id", call.id},
            {"name", call.name},
            {"arguments", text}};
  }
  static const char* status(FinishReason reason) {
    return reason == FinishReason::Stop ? "completed" : "incomplete";
  }

  // The response object, with nothing in it yet.
  ordered_json response(const char* status) const {
    const SamplingOptions& sampling = plan_.base.sampling;
    ordered_json tools = ordered_json::array();
    for (const OrderedJson& tool : plan_.tools.offered.items) {
      ordered_json flat = to_ordered_tree(*tool.find("function"));
      flat["type"] = "function";
      flat["strict"] = false;
      for (const Tool& known : plan_.tools.tools) {
        if (flat["name"] == known.name) flat["strict"] = known.strict;
      }
      if (!flat.contains("parameters")) flat["parameters"] = nullptr;
      tools.push_back(std::move(flat));
    }
    ordered_json choice = "auto";
    if (plan_.tools.choice == ToolUse::Choice::None) choice = "none";
    if (plan_.tools.choice == ToolUse::Choice::Required) choice = "required";
    if (plan_.tools.choice == ToolUse::Choice::Named) {
      choice = {{"type", "function"}, {"name", plan_.tools.tools[0].name}};
    }
    return {
        {"id", id_},
        {"object", "response"},
        {"created_at", created_},
        {"status", status},
        {"error", nullptr},
        {"incomplete_details", nullptr},
        {"instructions", plan_.instructions ? ordered_json(*plan_.instructions) : ordered_json()},
        {"max_output_tokens", plan_.max_tokens ? ordered_json(*plan_.max_tokens) : ordered_json()},
        {"metadata", ordered_json::object()},
        {"model", plan_.model},
        {"output", ordered_json::array()},
        {"parallel_tool_calls", plan_.tools.parallel},
        {"previous_response_id", nullptr},
        {"seed", plan_.seed},
        {"store", false},
        {"temperature", sampling.is_greedy() ? 0 : sampling.temperature},
        {"text", {{"format", {{"type", plan_.format.empty() ? "text" : plan_.format}}}}},
        {"tool_choice", std::move(choice)},
        {"tools", std::move(tools)},
        {"top_p", sampling.top_p},
        {"truncation", "disabled"},
        {"usage", nullptr}};
  }
  // There is a message where there is text, or nothing else.
  static bool has_message(const Choice& choice) {
    return !choice.text.empty() || (choice.calls.empty() && choice.reasoning.empty());
  }
  ordered_json finished_response() const {
    const Choice& choice = choices_[0];
    const FinishReason reason = choice.completion.reason;
    ordered_json out = response(status(reason));
    if (reason != FinishReason::Stop) {
      out["incomplete_details"] = {{"reason", "max_output_tokens"}};
    }
    if (!choice.reasoning.empty()) out["output"].push_back(reasoning(thought(choice.reasoning)));
    if (has_message(choice)) {
      out["output"].push_back(message(status(reason), ordered_json::array({part(choice.text)})));
    }
    for (const Call& call : choice.calls) {
      out["output"].push_back(call_item(call, status(reason), call.arguments));
    }
    const Usage counts = usage();
    out["usage"] = {
        {"input_tokens", counts.prompt},
        {"input_tokens_details", {{"cached_tokens", counts.cached}, {"cache_write_tokens", 0}}},
        {"output_tokens", counts.made},
        {"output_tokens_details", {{"reasoning_tokens", 0}}},
        {"total_tokens", counts.prompt + counts.made}};
    return out;
  }

  void send(const std::string& type, ordered_json event) {
    ordered_json whole = {{"type", type}, {"sequence_number", sequence_++}};
    whole.update(event);
    exchange_->write("event: " + type + "\ndata: " + dump(whole) + "\n\n");
  }
  // The members of events that say which item they are about: the open one.
  ordered_json at_item(const std::string& id) const {
    return {{"item_id", id}, {"output_index", output_}};
  }
  ordered_json at_part(const std::string& id) const {
    ordered_json at = at_item(id);
    at["content_index"] = 0;
    return at;
  }
  const Call& call() const { return choices_[0].calls[calls_begun_ - 1]; }
  std::string call_item_id() const { return "fc_" + call().id.substr(5); }

  void open(Kind kind) {
    if (open_ == kind && kind != Kind::Call) return;
    close(FinishReason::Stop);
    open_ = kind;
    ordered_json item;
    if (kind == Kind::Reasoning) item = reasoning(ordered_json::array());
    if (kind == Kind::Message) item = message("in_progress", ordered_json::array());
    if (kind == Kind::Call) item = call_item(call(), "in_progress", "");
    send("response.output_item.added", {{"output_index", output_}, {"item", std::move(item)}});
    if (kind == Kind::Message) {
      ordered_json event = at_part(message_id_);
      event["part"] = part("");
      send("response.content_part.added", std::move(event));
    }
  }
  void close(FinishReason reason) {
    const Choice& choice = choices_[0];
    ordered_json item, event;
    switch (std::exchange(open_, Kind::None)) {
      case Kind::None:
        return;
      case Kind::Reasoning:
        event = at_part(reasoning_id_);
        event["text"] = choice.reasoning;
        send("response.reasoning_text.done", std::move(event));
        item = reasoning(thought(choice.reasoning));
        break;
      case Kind::Message:
        event = at_part(message_id_);
        event["text"] = choice.text;
        event["logprobs"] = ordered_json::array();
        send("response.output_text.done", std::move(event));
        event = at_part(message_id_);
        event["part"] = part(choice.text);
        send("response.content_part.done", std::move(event));
        item = message(status(reason), ordered_json::array({part(choice.text)}));
        break;
      case Kind::Call:
        event = at_item(call_item_id());
        event["name"] = call().name;
        event["arguments"] = call().arguments;
        send("response.function_call_arguments.done", std::move(event));
        item = call_item(call(), status(reason), call().arguments);
        break;
    }
    send("response.output_item.done", {{"output_index", output_}, {"item", std::move(item)}});
    ++output_;
  }

  void stream_begin(size_t) override {
    send("response.created", {{"response", response("in_progress")}});
    send("response.in_progress", {{"response", response("in_progress")}});
  }

  void stream_piece(const Piece& piece) override {
    for (const ReplyEvent& said : piece.events) {
      ordered_json event;
      switch (said.kind) {
        case ReplyEvent::Kind::Reasoning:
          open(Kind::Reasoning);
          event = at_part(reasoning_id_);
          event["delta"] = said.text;
          send("response.reasoning_text.delta", std::move(event));
          break;
        case ReplyEvent::Kind::Text:
          open(Kind::Message);
          event = at_part(message_id_);
          event["delta"] = said.text;
          event["logprobs"] = ordered_json::array();
          send("response.output_text.delta", std::move(event));
          break;
        case ReplyEvent::Kind::CallBegin:
          close(FinishReason::Stop);
          ++calls_begun_;
          open(Kind::Call);
          break;
        case ReplyEvent::Kind::CallArguments:
          event = at_item(call_item_id());
          event["delta"] = said.text;
          send("response.function_call_arguments.delta", std::move(event));
          break;
      }
    }
    if (!piece.finish) return;
    if (has_message(choices_[0])) {
      if (choices_[0].text.empty()) open(Kind::Message);
    }
    close(*piece.finish);
  }

  void stream_end() override {
    const bool whole = choices_[0].completion.reason == FinishReason::Stop;
    send(whole ? "response.completed" : "response.incomplete", {{"response", finished_response()}});
  }

  void stream_failure(const ApiError& error) override {
    ordered_json failed = response("failed");
    failed["error"] = {{"code", error.code.empty() ? "server_error" : error.code},
                       {"message", error.message}};
    send("response.failed", {{"response", std::move(failed)}});
  }

  std::string whole_answer() override { return dump(finished_response()); }

  const std::string id_ = new_id("resp_"), message_id_ = new_id("msg_");
  const std::string reasoning_id_ = new_id("rs_");
  int64_t sequence_ = 0;
  Kind open_ = Kind::None;
  size_t output_ = 0, calls_begun_ = 0;
};

}  // namespace

std::shared_ptr<Generation> make_response(std::shared_ptr<Exchange> exchange,
                                          std::shared_ptr<LoadedModel> model, Plan plan,
                                          Metrics& metrics) {
  return std::make_shared<ResponseAnswer>(std::move(exchange), std::move(model), std::move(plan),
                                          metrics);
}

}  // namespace quern::serve
