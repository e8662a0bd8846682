// How a model writes conversations: messages in, the ids of a prompt out. A model's own chat
// template says so (text/chat_template.h), or for the first Qwen releases, which have none, the
// release's ChatML (text/chatml.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/ordered_json.h"
#include "text/messages.h"
#include "text/tokenizer.h"

namespace quern {

struct ChatPrompt {
  std::vector<Message> messages;
  OrderedJson tools;             // OpenAI's form: a list of {type, function}; null for none
  OrderedJson documents;         // a list of objects; null for none
  OrderedJson variables;         // an object of the template's own variables; null for none
  std::optional<bool> thinking;  // enable_thinking; absent: as the template says
  // Ends with what begins the assistant's answer. Else it ends with the last message.
  bool add_generation_prompt = true;
  // The last message stays open: the model goes on with its text. Excludes add_generation_prompt.
  bool continue_final_message = false;
  // Tokens of the history that are kept; only the release's ChatML reads it.
  std::optional<int64_t> max_window;
};

struct RenderedChat {
  std::string text;  // control tokens by their names
  std::vector<TokenId> ids;
  int64_t left_out = 0;  // turns of the history that max_window left out
};

class ChatFormat {
 public:
  virtual ~ChatFormat() = default;

  // Control tokens come from the format alone: their names in messages, tools and documents are
  // encoded as text. Throws BadInput with the format's own word for a conversation that it cannot
  // write ("roles must alternate ..."), and for tools or documents where it knows none.
  virtual RenderedChat render(const ChatPrompt& prompt) const = 0;

  // Tokens that end the assistant's turn.
  virtual const std::vector<TokenId>& turn_ends() const noexcept = 0;

  // What this is, in a word or two for reports: "ChatML", "the chat template".
  virtual std::string_view title() const noexcept = 0;
};

}  // namespace quern
