// Items answered by an OpenAI-compatible server: texts by completions and chat completions, choices
// by the log-probabilities of an echoed prompt.
#pragma once

#include "answer/answerer.h"
#include "evaluate/answers.h"

namespace quern {

class ServerSource : public AnswerSource {
 public:
  explicit ServerSource(Answerer& server) : server_(server) {}

  // Stops at the first question that the server doesn't answer. Throws Unsupported where it echoes
  // no log-probabilities; Partial naming the item where some answers came before it failed, Failed
  // where none did.
  void answer(std::span<const Question> questions,
              const std::function<void(size_t, ItemAnswer)>& take,
              const std::atomic<bool>& cancel) override;
  // What the server calls itself and its model: its weights and rules are its own.
  nlohmann::ordered_json identity() const override;
  bool is_chat() const override { return true; }  // a server without a template refuses by itself

 private:
  struct Failure;
  void ask_texts(std::span<const Question> questions, size_t first,
                 const std::function<void(size_t, ItemAnswer)>& take,
                 const std::atomic<bool>& cancel, Failure& failure);
  void ask_choices(std::span<const Question> questions, size_t first,
                   const std::function<void(size_t, ItemAnswer)>& take,
                   const std::atomic<bool>& cancel, Failure& failure);

  Answerer& server_;
  bool answered_ = false;  // anything yet
};

}  // namespace quern
