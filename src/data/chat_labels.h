// Conversations as training reads them: the ids that the model's own format makes of them, and which
// of them are learnt.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/react_conversation.h"
#include "data/conversations.h"
#include "text/chat_format.h"
#include "text/chat_template.h"
#include "text/chatml.h"

namespace quern {

enum class ChatMask : uint8_t {
  Memo,     // all but the content of the user's turns
  Release,  // of each turn its marks and the line break after it; of the assistant's its content, too
  Assistant,  // the assistant's content and the token that ends it
};
std::optional<ChatMask> chat_mask(std::string_view name) noexcept;  // "memo", ...

// The treatment of a conversation of more than max_length tokens.
enum class LongChat : uint8_t {
  Drop,  // whole turns go, the oldest first; what is still too long is left out
  Cut,   // its end goes
  Error,
};
std::optional<LongChat> long_chat(std::string_view name) noexcept;  // "drop", ...

struct LabelledChat {
  std::vector<TokenId> ids;
  std::vector<uint8_t> learnt;                   // of each id, 0 or 1
  std::vector<std::pair<size_t, size_t>> turns;  // [begin, end) in ids, the system's turn first
  bool truncated = false;                        // something was left out for its length
};

class ChatLabeller {
 public:
  // Takes ChatML as the first releases write it, or a template; both are kept by reference.
  ChatLabeller(const Tokenizer& tokenizer, const ChatMl& format, ChatMask mask);
  ChatLabeller(const Tokenizer& tokenizer, const TemplatedChat& format, ChatMask mask);

  // The whole conversation. Tools are written as the template does; where the format knows none, in
  // ReAct's form (agent/react_conversation.h), of which results of tools are learnt by Memo alone.
  // Throws BadInput for one that the format cannot write, and where nothing of it would be learnt.
  LabelledChat label(const Conversation& conversation) const;

  // The same within `max_length` tokens; nothing where it had to be left out.
  std::optional<LabelledChat> label(const Conversation& conversation, int64_t max_length,
                                    LongChat when_long) const;

 private:
  LabelledChat by_release(const ReactConversation& conversation) const;
  LabelledChat by_template(const ReactConversation& conversation, const OrderedJson& tools) const;

  const Tokenizer& tokenizer_;
  const ChatMl* release_ = nullptr;
  const TemplatedChat* templated_ = nullptr;
  ChatMask mask_;
  bool knows_tools_ = false;
};

}  // namespace quern
