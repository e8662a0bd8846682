// What the answers of chat completions and completions share: the members around their choices, and
// a stream whose events have no names and whose last is [DONE].
#pragma once

#include <nlohmann/json.hpp>

#include "serve/generation.h"

namespace quern::serve {

class OpenAiAnswer : public Generation {
 public:
  using Generation::Generation;

 protected:
  // An event about one choice; with the counts so far where each event is to have them.
  void send_choice(nlohmann::ordered_json choice);
  // The body of an answer that is not streamed.
  std::string whole_body(nlohmann::ordered_json choices) const;

 private:
  nlohmann::ordered_json envelope(nlohmann::ordered_json choices) const;
  nlohmann::ordered_json usage_json() const;
  void add_figures(nlohmann::ordered_json& last) const;
  void send(const nlohmann::ordered_json& event);

  void stream_end() override;
  void stream_failure(const ApiError& error) override;

  const std::string id_ = new_id(plan_.where == Text ? "cmpl-" : "chatcmpl-");
};

}  // namespace quern::serve
