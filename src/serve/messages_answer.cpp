// The answers of /v1/messages, in Anthropic's form: blocks of thinking, text and calls, whole or as
// events.
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "serve/generation.h"

namespace quern::serve {
namespace {

using nlohmann::ordered_json;

class MessageAnswer : public Generation {
 public:
  using Generation::Generation;

 private:
  enum class Kind { None, Thinking, Text, Call };

  static const char* stop_reason(const Choice& choice, const Plan& plan) {
    const Completion& done = choice.completion;
    if (done.reason != FinishReason::Stop) return "max_tokens";
    if (calls_tools(choice)) return "tool_use";
    const bool by_id = !done.ids.empty() && plan.base.stop.ends(done.ids.back());
    return by_id || plan.base.stop.strings.empty() ? "end_turn" : "stop_sequence";
  }
  ordered_json usage_json(bool made) const {
    const Usage counts = usage();
    return {{"input_tokens", counts.prompt - counts.cached},
            {"cache_creation_input_tokens", 0},
            {"cache_read_input_tokens", counts.cached},
            {"output_tokens", made ? counts.made : 0}};
  }
  // The stop string that ended the answer: known where the request has only one.
  ordered_json stop_sequence(const Choice& choice) const {
    const auto& strings = plan_.base.stop.strings;
    const bool known =
        std::string_view(stop_reason(choice, plan_)) == "stop_sequence" && strings.size() == 1;
    return known ? ordered_json(strings[0]) : ordered_json();
  }
  ordered_json message() const {
    return {{"id", id_},
            {"type", "message"},
            {"role", "assistant"},
            {"model", plan_.model},
            {"content", ordered_json::array()},
            {"stop_reason", nullptr},
            {"stop_sequence", nullptr},
            {"usage", usage_json(false)}};
  }
  static ordered_json call_block(const Call& call, ordered_json input) {
    return {{"type", "tool_use"},
            {"id", "toolu_" + call.id.substr(5)},
            {"name", call.name},
            {"input", std::move(input)}};
  }

  void send(const std::string& type, ordered_json event) {
    ordered_json whole = {{"type", type}};
    whole.update(event);
    exchange_->write("event: " + type + "\ndata: " + dump(whole) + "\n\n");
  }
  void open(Kind kind) {
    if (open_ == kind && kind != Kind::Call) return;
    close();
    open_ = kind;
    ordered_json block;
    if (kind == Kind::Thinking) block = {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}};
    if (kind == Kind::Text) block = {{"type", "text"}, {"text", ""}};
    if (kind == Kind::Call) {
      block = call_block(choices_[0].calls[calls_begun_ - 1], ordered_json::object());
    }
    send("content_block_start", {{"index", block_}, {"content_block", std::move(block)}});
  }
  void close() {
    if (std::exchange(open_, Kind::None) == Kind::None) return;
    send("content_block_stop", {{"index", block_++}});
  }
  void delta(ordered_json what) {
    send("content_block_delta", {{"index", block_}, {"delta", std::move(what)}});
  }

  void stream_begin(size_t) override { send("message_start", {{"message", message()}}); }

  void stream_piece(const Piece& piece) override {
    for (const ReplyEvent& event : piece.events) {
      switch (event.kind) {
        case ReplyEvent::Kind::Reasoning:
          open(Kind::Thinking);
          delta({{"type", "thinking_delta"}, {"thinking", event.text}});
          break;
        case ReplyEvent::Kind::Text:
          open(Kind::Text);
          delta({{"type", "text_delta"}, {"text", event.text}});
          break;
        case ReplyEvent::Kind::CallBegin:
          ++calls_begun_;
          open(Kind::Call);
          break;
        case ReplyEvent::Kind::CallArguments:
          delta({{"type", "input_json_delta"}, {"partial_json", event.text}});
          break;
      }
    }
    if (!piece.finish) return;
    const Choice& choice = choices_[0];
    if (choice.text.empty() && choice.calls.empty() && choice.reasoning.empty()) open(Kind::Text);
    close();
  }

  void stream_end() override {
    const Choice& choice = choices_[0];
    send("message_delta",
         {{"delta",
           {{"stop_reason", stop_reason(choice, plan_)}, {"stop_sequence", stop_sequence(choice)}}},
          {"usage", usage_json(true)}});
    send("message_stop", ordered_json::object());
  }

  void stream_failure(const ApiError& error) override {
    exchange_->write("event: error\ndata: " + error_body(error, ErrorForm::Anthropic) + "\n\n");
  }

  std::string whole_answer() override {
    const Choice& choice = choices_[0];
    ordered_json out = message();
    if (!choice.reasoning.empty()) {
      out["content"].push_back(
          {{"type", "thinking"}, {"thinking", choice.reasoning}, {"signature", ""}});
    }
    if (!choice.text.empty() || (choice.calls.empty() && choice.reasoning.empty())) {
      out["content"].push_back({{"type", "text"}, {"text", choice.text}});
    }
    for (const Call& call : choice.calls) {
      out["content"].push_back(
          call_block(call, read_arguments(call.arguments).value_or(ordered_json::object())));
    }
    out["stop_reason"] = stop_reason(choice, plan_);
    out["stop_sequence"] = stop_sequence(choice);
    out["usage"] = usage_json(true);
    return dump(out);
  }

  const std::string id_ = new_id("msg_");
  Kind open_ = Kind::None;
  size_t block_ = 0, calls_begun_ = 0;
};

}  // namespace

std::shared_ptr<Generation> make_message(std::shared_ptr<Exchange> exchange,
                                         std::shared_ptr<LoadedModel> model, Plan plan,
                                         Metrics& metrics) {
  return std::make_shared<MessageAnswer>(std::move(exchange), std::move(model), std::move(plan),
                                         metrics);
}

}  // namespace quern::serve
