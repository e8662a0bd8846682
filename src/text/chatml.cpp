#include "text/chatml.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace quern {
namespace {

TokenId required(const Tokenizer& tokenizer, std::string_view name) {
  if (const auto id = tokenizer.special(name)) return *id;
  throw_bad_input(fmt::format("the tokenizer has no special token {}", name),
                  "chat needs a model with ChatML; use 'quern generate' for others");
}

}  // namespace

bool supports_chatml(const Tokenizer& tokenizer) {
  return tokenizer.special("<|im_start|>") && tokenizer.special("<|im_end|>");
}

ChatMl::ChatMl(const Tokenizer& tokenizer)
    : tokenizer_(tokenizer),
      start_(required(tokenizer, "<|im_start|>")),
      end_(required(tokenizer, "<|im_end|>")) {
  tokenizer.encode("\n", newline_);
  ends_ = {end_, start_};
  if (const auto end_of_text = tokenizer.special("<|endoftext|>")) ends_.push_back(*end_of_text);
}

void ChatMl::append_turn(const Message& message, std::vector<TokenId>& out) const {
  out.push_back(start_);
  tokenizer_.encode(name(message.role), out);
  out.insert(out.end(), newline_.begin(), newline_.end());
  tokenizer_.encode(message.text(), out);
  out.push_back(end_);
}

ChatMl::Prompt ChatMl::prompt(const std::vector<Message>& messages, int64_t max_window) const {
  if (messages.empty() || messages.back().role != ChatRole::User) {
    throw_bad_input("the conversation's last message is not the user's");
  }
  const bool has_system = messages[0].role == ChatRole::System;
  std::vector<TokenId> ids;
  append_turn(has_system ? messages[0] : Message(ChatRole::System, ""), ids);

  // A turn of the history: the user's message and all that answers it, up to the next user's.
  const size_t first = has_system ? 1 : 0, question = messages.size() - 1;
  std::vector<std::vector<TokenId>> kept;  // newest first
  size_t kept_size = 0;
  for (size_t end = question; end > first;) {
    size_t begin = end - 1;
    while (begin > first && messages[begin].role != ChatRole::User) --begin;
    std::vector<TokenId> turn;
    for (size_t i = begin; i < end; ++i) {
      turn.insert(turn.end(), newline_.begin(), newline_.end());
      append_turn(messages[i], turn);
    }
    if (static_cast<int64_t>(ids.size() + kept_size + turn.size()) >= max_window) break;
    kept_size += turn.size();
    kept.push_back(std::move(turn));
    end = begin;
  }
  Prompt out = {std::move(ids), static_cast<int64_t>(kept.size())};
  for (auto turn = kept.rbegin(); turn != kept.rend(); ++turn) {
    out.ids.insert(out.ids.end(), turn->begin(), turn->end());
  }
  const auto append_newline = [&] {
    out.ids.insert(out.ids.end(), newline_.begin(), newline_.end());
  };
  append_newline();
  append_turn(messages.back(), out.ids);
  append_newline();
  out.ids.push_back(start_);
  tokenizer_.encode("assistant", out.ids);
  append_newline();
  return out;
}

RenderedChat ChatMl::render(const ChatPrompt& prompt) const {
  if (!prompt.tools.is_null() && !prompt.tools.items.empty()) {
    throw_bad_input("this model's ChatML knows no tools");
  }
  if (!prompt.documents.is_null() && !prompt.documents.items.empty()) {
    throw_bad_input("this model's ChatML knows no documents");
  }
  std::vector<Message> messages = prompt.messages;
  for (Message& message : messages) {
    if (message.role == ChatRole::Developer) message.role = ChatRole::System;
    if (message.role == ChatRole::Tool || !message.tool_calls.empty()) {
      throw_bad_input("this model's ChatML knows no tools");
    }
  }
  if (messages.empty()) throw_bad_input("the conversation is empty");
  if (prompt.add_generation_prompt && prompt.continue_final_message) {
    throw_bad_input("continue_final_message and add_generation_prompt are not compatible");
  }
  if (messages[0].role != ChatRole::System) {
    messages.insert(messages.begin(), {ChatRole::System, std::string(kDefaultSystem)});
  }
  RenderedChat out;
  if (prompt.add_generation_prompt) {
    Prompt made = this->prompt(messages, prompt.max_window.value_or(INT64_MAX));
    out.ids = std::move(made.ids);
    const auto asked = std::count_if(messages.begin(), messages.end() - 1,
                                     [](const Message& m) { return m.role == ChatRole::User; });
    out.left_out = asked - made.kept_turns;
  } else {
    for (const Message& message : messages) {
      append_turn(message, out.ids);
      out.ids.insert(out.ids.end(), newline_.begin(), newline_.end());
    }
    if (prompt.continue_final_message) out.ids.resize(out.ids.size() - newline_.size() - 1);
  }
  out.text = tokenizer_.decode(out.ids);
  return out;
}

}  // namespace quern
