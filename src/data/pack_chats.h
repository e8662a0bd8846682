// Conversations to a dataset of token ids with what is learnt of them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "data/chat_labels.h"
#include "data/dataset.h"
#include "text/tokenizer.h"

namespace quern {

// How a model's conversations are written: by its chat template (`chat_template` names another, see
// named_chat_template), or by ChatML as the first Qwen releases have it. Throws BadInput for a model
// with neither.
class ChatWriter {
 public:
  ChatWriter(const fs::path& model, const Tokenizer& tokenizer,
             const std::string& chat_template = {});
  ChatLabeller labeller(ChatMask mask) const;
  bool ends_turn(TokenId id) const;

 private:
  const Tokenizer& tokenizer_;
  std::unique_ptr<TemplatedChat> templated_;
  std::unique_ptr<ChatMl> release_;
};

struct ChatPackOptions {
  std::string name;
  ConversationForm form = ConversationForm::Auto;
  LongChat when_long = LongChat::Drop;
  int64_t max_length = 2048;  // tokens of a conversation
  bool strict = false;        // stop at the first bad record instead of counting it
};

struct ChatPackReport {
  int64_t conversations = 0, shortened = 0, left_out = 0, bad = 0;
  std::vector<std::string> problems;  // the first few
};

// Throws BadInput where no conversation is left. `progress` is called now and then; it may throw to
// stop.
ChatPackReport pack_chats(const std::vector<fs::path>& files, const Tokenizer& tokenizer,
                          const ChatLabeller& labeller, const fs::path& folder,
                          const ChatPackOptions& options, ThreadPool& pool,
                          const std::function<void()>& progress);

}  // namespace quern
