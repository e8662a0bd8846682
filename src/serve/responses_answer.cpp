// The answers of /v1/responses: one message, whole or as typed events, each of which has a name
// and a number.
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
  static const char* status(FinishReason reason) {
    return reason == FinishReason::Stop ? "completed" : "incomplete";
  }

  // The response object, with nothing in it yet.
  ordered_json response(const char* status) const {
    const SamplingOptions& sampling = plan_.base.sampling;
    return {
        {"id", id_},
        {"object", "response"},
        {"created_at", created_},
        {"status", status},
        {"error", nullptr},
        {"incomplete_details", nullptr},
        {"instructions", plan_.instructions ? ordered_json(*plan_.instructions) : ordered_json()},
        {"max_output_tokens", plan_.max_tokens ? ordered_json(*plan_.max_tokens) : ordered_json()},
        {"model", plan_.model},
        {"output", ordered_json::array()},
        {"parallel_tool_calls", false},
        {"previous_response_id", nullptr},
        {"seed", sampling.seed},
        {"store", false},
        {"temperature", sampling.is_greedy() ? 0 : sampling.temperature},
        {"text", {{"format", {{"type", plan_.format.empty() ? "text" : plan_.format}}}}},
        {"tool_choice", "none"},
        {"tools", ordered_json::array()},
        {"top_p", sampling.top_p},
        {"truncation", "disabled"},
        {"usage", nullptr}};
  }
  ordered_json finished_response() const {
    const Completion& done = choices_[0].completion;
    ordered_json out = response(status(done.reason));
    if (done.reason != FinishReason::Stop) {
      out["incomplete_details"] = {{"reason", "max_output_tokens"}};
    }
    out["output"].push_back(message(status(done.reason), ordered_json::array({part(done.text)})));
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
  // Of the answer's only text.
  ordered_json at_text() const {
    return {{"item_id", message_id_}, {"output_index", 0}, {"content_index", 0}};
  }

  void stream_begin(size_t) override {
    send("response.created", {{"response", response("in_progress")}});
    send("response.in_progress", {{"response", response("in_progress")}});
    send("response.output_item.added",
         {{"output_index", 0}, {"item", message("in_progress", ordered_json::array())}});
    ordered_json event = at_text();
    event["part"] = part("");
    send("response.content_part.added", std::move(event));
  }

  void stream_piece(const Piece& piece) override {
    if (piece.text.empty()) return;
    ordered_json event = at_text();
    event["delta"] = piece.text;
    event["logprobs"] = ordered_json::array();
    send("response.output_text.delta", std::move(event));
  }

  void stream_end() override {
    const Completion& done = choices_[0].completion;
    ordered_json event = at_text();
    event["text"] = done.text;
    event["logprobs"] = ordered_json::array();
    send("response.output_text.done", std::move(event));
    event = at_text();
    event["part"] = part(done.text);
    send("response.content_part.done", std::move(event));
    ordered_json last = finished_response();
    send("response.output_item.done", {{"output_index", 0}, {"item", last["output"][0]}});
    send(std::string("response.") + status(done.reason), {{"response", std::move(last)}});
  }

  void stream_failure(const ApiError& error) override {
    ordered_json failed = response("failed");
    failed["error"] = {{"code", "server_error"}, {"message", error.message}};
    send("response.failed", {{"response", std::move(failed)}});
  }

  std::string whole_answer() override { return dump(finished_response()); }

  const std::string id_ = new_id("resp_"), message_id_ = new_id("msg_");
  int64_t sequence_ = 0;
};

}  // namespace

std::shared_ptr<Generation> make_response(std::shared_ptr<Exchange> exchange,
                                          std::shared_ptr<LoadedModel> model, Plan plan,
                                          Metrics& metrics) {
  return std::make_shared<ResponseAnswer>(std::move(exchange), std::move(model), std::move(plan),
                                          metrics);
}

}  // namespace quern::serve
