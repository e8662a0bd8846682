// Separates what a model thinks before it answers from the answer: <think> ... </think>.
#pragma once

#include <string>
#include <string_view>

namespace quern {

// Text in as it comes, in pieces of any size; the two kinds of text out. Only what begins the answer
// is reasoning: the tags' names later on are text. Line breaks around the tags belong to neither.
class ReasoningSplitter {
 public:
  // `inside`: the prompt has opened the tag already, see opens_reasoning().
  explicit ReasoningSplitter(bool inside = false)
      : state_(inside ? State::Reasoning : State::Start) {}

  struct Pieces {
    std::string reasoning, content;
  };
  Pieces put(std::string_view text);
  Pieces flush();  // what was held back, once there is no more

  bool inside() const noexcept { return state_ == State::Reasoning; }

 private:
  enum class State : uint8_t { Start, Reasoning, AfterTag, Content };

  State state_;
  std::string held_;
  bool begun_ = false;  // something of the reasoning was given out
};

// Whether a prompt ends with an opened tag, so that the answer begins with reasoning.
bool opens_reasoning(std::string_view prompt);

}  // namespace quern
