// Pairs of answers of which one is preferred, out of training files.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "data/conversations.h"
#include "data/pack_chats.h"

namespace quern {

struct Preference {
  Conversation chosen, rejected;  // the same up to the last answer
};

// One record, in the forms that TRL reads: `prompt`, `chosen`, `rejected`, each a text or a list of
// messages; or `chosen` and `rejected` alone, whole conversations; or `messages` with the preferred
// answer and `rejected`, the other one as a text. Throws BadInput at `where` for what is none of
// these, for an answer that is empty, and for two answers that are the same.
Preference read_preference(const OrderedJson& record, const std::string& where);

// Writes each pair as two documents, the preferred one first, of which the last answer is learnt. A
// pair with a conversation longer than options.max_length is left out. Throws as pack_chats().
ChatPackReport pack_preferences(const std::vector<fs::path>& files, const Tokenizer& tokenizer,
                                const ChatLabeller& labeller, const fs::path& folder,
                                const ChatPackOptions& options,
                                const std::function<void()>& progress);

}  // namespace quern
