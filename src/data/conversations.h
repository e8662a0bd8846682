// Conversations out of training files, whatever form they are written in.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "core/ordered_json.h"
#include "text/messages.h"

namespace quern {

class LineReader;

enum class ConversationForm : uint8_t {
  Auto,      // told apart by the keys
  OpenAi,    // messages [, tools]
  ShareGpt,  // conversations of {from: human, gpt, system, function_call, observation, value}
  Alpaca,    // instruction, input, output [, system, history: pairs of question and answer]
  Release,  // conversations of {from: user, assistant, value}, as finetune.py of Qwen's release reads
};
std::optional<ConversationForm> conversation_form(std::string_view name) noexcept;  // "openai", ...
std::string_view name(ConversationForm form) noexcept;

struct Conversation {
  std::vector<Message> messages;
  OrderedJson tools;  // null for none
  int64_t line = 0;   // of its file, from 1; the number of its item in a file that is an array
};

// One record. `form` becomes the form that it has, where that was Auto. Throws BadInput at `where`,
// with the path of the field, for what is no conversation to learn from: an unknown role, an empty
// turn, nothing but a system message, the same speaker twice in a row, a tool call that is not
// followed by its result, a result without a call.
Conversation read_conversation(const OrderedJson& record, ConversationForm& form,
                               const std::string& where);

// A file of them: JSON lines, or one JSON array, also compressed. Records of two forms in one file
// are an error, since one of them is not what it was taken for.
class ConversationReader {
 public:
  struct Options {
    ConversationForm form = ConversationForm::Auto;
    bool strict = false;  // stop at the first bad record instead of counting it
    uint64_t max_record_bytes = uint64_t{64} << 20;
  };
  ConversationReader(const fs::path& path, const Options& options);
  ~ConversationReader();

  bool next(Conversation& conversation);

  int64_t bad_records() const noexcept { return bad_; }
  const std::vector<std::string>& problems() const noexcept { return problems_; }  // the first few
  ConversationForm form() const noexcept { return form_; }

 private:
  std::optional<OrderedJson> next_record(std::string& where);

  fs::path path_;
  Options options_;
  ConversationForm form_;
  std::unique_ptr<LineReader> lines_;  // null for an array
  std::vector<OrderedJson> array_;
  size_t at_ = 0;
  int64_t number_ = 0;
  int64_t bad_ = 0;
  std::vector<std::string> problems_;
};

}  // namespace quern
