#include "serve/openai_answer.h"

#include "core/json.h"

namespace quern::serve {

using nlohmann::ordered_json;

ordered_json OpenAiAnswer::envelope(ordered_json choices) const {
  const char* chat = plan_.stream ? "chat.completion.chunk" : "chat.completion";
  return {{"id", id_},
          {"object", plan_.where == Text ? "text_completion" : chat},
          {"created", created_},
          {"model", plan_.model},
          {"system_fingerprint", "quern-" QUERN_VERSION},
          {"seed", plan_.seed},
          {"choices", std::move(choices)}};
}

ordered_json OpenAiAnswer::usage_json() const {
  const Usage counts = usage();
  return {{"prompt_tokens", counts.prompt},
          {"completion_tokens", counts.made},
          {"total_tokens", counts.prompt + counts.made},
          {"prompt_tokens_details", {{"cached_tokens", counts.cached}}}};
}

void OpenAiAnswer::add_figures(ordered_json& last) const {
  last["usage"] = usage_json();
  last["timings"] = timings();
}

void OpenAiAnswer::send(const ordered_json& event) {
  exchange_->write("data: " + dump(event) + "\n\n");
}

void OpenAiAnswer::send_choice(ordered_json choice) {
  ordered_json event = envelope(ordered_json::array({std::move(choice)}));
  if (plan_.include_usage) {
    event["usage"] = plan_.usage_everywhere ? usage_json() : ordered_json();
  }
  send(event);
}

std::string OpenAiAnswer::whole_body(ordered_json choices) const {
  ordered_json out = envelope(std::move(choices));
  add_figures(out);
  return dump(out);
}

void OpenAiAnswer::stream_end() {
  if (plan_.include_usage) {
    ordered_json event = envelope(ordered_json::array());
    add_figures(event);
    send(event);
  }
  exchange_->write("data: [DONE]\n\n");
}

void OpenAiAnswer::stream_failure(const ApiError& error) {
  exchange_->write("data: " + error_body(error) + "\n\n");
}

}  // namespace quern::serve
