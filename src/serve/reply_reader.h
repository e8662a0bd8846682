// Splits a model's reply while it comes into reasoning, text and calls of tools. Gives the same,
// joined, whether it is fed byte by byte or all at once.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/reply.h"

namespace quern::serve {

struct ReplyRules {
  bool reasoning = false;          // the reply may begin with <think>
  bool in_reasoning = false;       // the prompt has opened it already
  std::optional<ToolStyle> tools;  // how calls are written; absent: all is text
};

struct ReplyEvent {
  enum class Kind { Reasoning, Text, CallBegin, CallArguments } kind;
  std::string text;  // of CallBegin the function's name
};

class ReplyReader {
 public:
  explicit ReplyReader(const ReplyRules& rules);

  std::vector<ReplyEvent> put(std::string_view text);
  std::vector<ReplyEvent> finish();

 private:
  enum class Stage { Begin, Reasoning, BeforeText, Text, Call, AfterCall };

  void step(bool at_end);
  void read_react();
  bool begin(bool at_end);
  bool reason(bool at_end);
  bool tell_text(bool at_end);
  bool call(bool at_end);
  bool after_call(bool at_end);
  bool read_call_head(bool at_end);
  void emit(ReplyEvent::Kind kind, std::string text);

  ReplyRules rules_;
  Stage stage_ = Stage::Begin;
  std::string held_;  // what came and was not told yet
  std::vector<ReplyEvent> events_;
  bool text_told_ = false;
  bool listed_ = false;  // Mistral's list of calls
  // The call that is being read:
  std::string whole_;  // as far as it came
  size_t told_ = 0;    // of `whole_`: arguments that are out
  bool head_read_ = false, broken_ = false;
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false;
};

}  // namespace quern::serve
