// ChatML as the first Qwen releases write it, which come without a template. It is built from ids:
// control tokens are placed here and nowhere else, so a text that holds their names stays text.
#pragma once

#include <string>
#include <vector>

#include "text/chat_format.h"

namespace quern {

constexpr std::string_view kDefaultSystem = "You are a helpful assistant.";
constexpr int64_t kDefaultWindow = 6144;

class ChatMl : public ChatFormat {
 public:
  // Throws BadInput where the vocabulary lacks <|im_start|> or <|im_end|>.
  explicit ChatMl(const Tokenizer& tokenizer);

  // Puts kDefaultSystem in front of a conversation without a system message, as the release's
  // chat() does. The last message must be the user's, or the assistant's to be continued.
  RenderedChat render(const ChatPrompt& prompt) const override;
  const std::vector<TokenId>& turn_ends() const noexcept override { return ends_; }
  std::string_view title() const noexcept override { return "ChatML"; }

  struct Prompt {
    std::vector<TokenId> ids;
    int64_t kept_turns = 0;  // of the history: pairs of a question and its answer
  };
  // The prompt for an answer to the last message, which must be the user's. A first message of the
  // system's is always kept; without one the system's turn is there and empty. Of the history
  // before the question the newest turns are kept while system, kept turns and the next are
  // together fewer than `max_window` tokens, the question itself not counted; so does the release's
  // make_context.
  Prompt prompt(const std::vector<Message>& messages, int64_t max_window = kDefaultWindow) const;

  TokenId start() const noexcept { return start_; }
  TokenId end() const noexcept { return end_; }

  // <|im_start|>role, a line break, the content, <|im_end|>: without the break that parts turns.
  void append_turn(const Message& message, std::vector<TokenId>& out) const;
  const std::vector<TokenId>& newline() const noexcept { return newline_; }

 private:
  const Tokenizer& tokenizer_;
  TokenId start_, end_;
  std::vector<TokenId> newline_, ends_;
};

bool supports_chatml(const Tokenizer& tokenizer);

}  // namespace quern
