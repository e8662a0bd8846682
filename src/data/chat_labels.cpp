#include "data/chat_labels.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "text/unicode.h"

namespace quern {
namespace {

using chat_template::MarkedText;
using Spans = std::vector<std::pair<size_t, size_t>>;

// The end of each token in the text, in bytes. A tokenizer that normalizes changes the bytes of
// some texts; places are then those of the normalized text.
class TokenPlaces {
 public:
  TokenPlaces(const Tokenizer& tokenizer, std::string_view text, const std::vector<TokenId>& ids)
      : text_(text) {
    size_t at = 0;
    for (const TokenId id : ids) ends_.push_back(at += tokenizer.token_bytes(id).size());
    same_ = at == text.size();
  }
  // Marks the tokens that touch [begin, end).
  void mark(std::pair<size_t, size_t> span, std::vector<uint8_t>& learnt, uint8_t value) const {
    const size_t begin = place(span.first), end = place(span.second);
    if (begin >= end) return;
    auto token =
        static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), begin) - ends_.begin());
    for (; token < ends_.size() && (token == 0 ? 0 : ends_[token - 1]) < end; ++token) {
      learnt[token] = value;
    }
  }
  // The number of tokens that end at or before a place.
  size_t tokens_before(size_t at) const {
    return static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), place(at)) -
                               ends_.begin());
  }

 private:
  size_t place(size_t at) const {
    if (same_) return at;
    std::string storage;
    return unicode::to_nfc(text_.substr(0, at), storage).size();
  }

  std::string_view text_;
  std::vector<size_t> ends_;
  bool same_ = false;
};

bool literal(const MarkedText& text, size_t begin, size_t end) {
  for (size_t at = begin; at < end; ++at) {
    if (!text.origin_at(at).literal) return false;
  }
  return true;
}

// The next place where the template itself wrote `word`.
size_t find_literal(const MarkedText& text, std::string_view word, size_t from) {
  for (size_t at = from; (at = text.bytes().find(word, at)) != std::string_view::npos; ++at) {
    if (literal(text, at, at + word.size())) return at;
  }
  return std::string_view::npos;
}

// Stretches of one kind of bytes.
template <class Wanted>
Spans stretches(const MarkedText& text, const Wanted& wanted) {
  Spans out;
  for (size_t run = 0; run < text.runs().size(); ++run) {
    if (!wanted(text.runs()[run].origin)) continue;
    const size_t begin = text.runs()[run].begin;
    const size_t end = run + 1 < text.runs().size() ? text.runs()[run + 1].begin : text.size();
    if (!out.empty() && out.back().second == begin) {
      out.back().second = end;
    } else {
      out.emplace_back(begin, end);
    }
  }
  return out;
}

// The assistant's words, with the token that ends each turn: the template's {% generation %}, or
// the text from each generation prompt to that token.
Spans assistant_spans(const TemplatedChat& format, const Tokenizer& tokenizer,
                      const MarkedText& text) {
  if (format.has_generation()) {
    return stretches(text, [](const auto& origin) { return origin.generated; });
  }
  const std::string& begin = format.generation_prompt();
  if (begin.empty() || format.turn_ends().empty()) {
    throw_bad_input("the chat template does not say what the assistant's words are",
                    "mark them in it with {% generation %}, or name another --chat-template");
  }
  const std::string end(tokenizer.token_bytes(format.turn_ends()[0]));
  Spans out;
  for (size_t at = 0; (at = find_literal(text, begin, at)) != std::string_view::npos;) {
    at += begin.size();
    const size_t close = find_literal(text, end, at);
    const size_t stop = close == std::string_view::npos ? text.size() : close + end.size();
    out.emplace_back(at, stop);
    at = stop;
  }
  return out;
}

// Whether a template writes what tools there are: those that know none leave them out without a word.
bool writes_tools(const TemplatedChat& format) {
  ChatPrompt prompt;
  prompt.messages.emplace_back(ChatRole::User, "?");
  try {
    const std::string without = format.render(prompt).text;
    prompt.tools = OrderedJson::parse(
        R"([{"type": "function", "function": {"name": "quern_name", "description": "quern_words",
             "parameters": {"type": "object", "properties": {}}}}])",
        "probe");
    return format.render(prompt).text != without;
  } catch (const Error&) {
    return false;
  }
}

// Where a message's text is found in what the template made: from its first byte on, as it is.
std::optional<size_t> place_of(const MarkedText& text, uint32_t number, std::string_view content) {
  for (const auto& run : text.runs()) {
    if (run.origin.literal || run.origin.message != number) continue;
    if (text.bytes().substr(run.begin).starts_with(content)) return run.begin;
  }
  return std::nullopt;
}

bool is_user(const ReactConversation& conversation, uint32_t number) {
  return number >= 1 && number <= conversation.messages.size() &&
         conversation.messages[number - 1].role == ChatRole::User;
}

// Drops the oldest turn: the first user's message and all up to the next one.
bool drop_oldest(std::vector<Message>& messages) {
  const auto user = [](const Message& message) { return message.role == ChatRole::User; };
  const auto first = std::find_if(messages.begin(), messages.end(), user);
  if (first == messages.end()) return false;
  const auto next = std::find_if(first + 1, messages.end(), user);
  if (next == messages.end()) return false;
  messages.erase(first, next);
  return true;
}

}  // namespace

std::optional<ChatMask> chat_mask(std::string_view name) noexcept {
  if (name == "memo") return ChatMask::Memo;
  if (name == "release") return ChatMask::Release;
  if (name == "assistant") return ChatMask::Assistant;
  return std::nullopt;
}

std::optional<LongChat> long_chat(std::string_view name) noexcept {
  if (name == "drop") return LongChat::Drop;
  if (name == "cut") return LongChat::Cut;
  if (name == "error") return LongChat::Error;
  return std::nullopt;
}

ChatLabeller::ChatLabeller(const Tokenizer& tokenizer, const ChatMl& format, ChatMask mask)
    : tokenizer_(tokenizer), release_(&format), mask_(mask) {}

ChatLabeller::ChatLabeller(const Tokenizer& tokenizer, const TemplatedChat& format, ChatMask mask)
    : tokenizer_(tokenizer), templated_(&format), mask_(mask), knows_tools_(writes_tools(format)) {}

LabelledChat ChatLabeller::by_release(const ReactConversation& conversation) const {
  std::vector<Message> messages = conversation.messages;
  const bool system =
      messages[0].role == ChatRole::System || messages[0].role == ChatRole::Developer;
  // As finetune.py: a conversation begins with the user.
  const size_t first = system ? 1 : 0;
  const bool headless = messages.size() > first && messages[first].role != ChatRole::User;
  if (headless) messages.erase(messages.begin() + static_cast<ptrdiff_t>(first));
  if (!system) messages.insert(messages.begin(), {ChatRole::System, std::string(kDefaultSystem)});
  LabelledChat out;
  // ReAct's form has a system message in front: only a turn that was dropped moves the numbers.
  for (size_t number = 0; number < messages.size(); ++number) {
    Message& message = messages[number];
    if (message.role == ChatRole::Developer) message.role = ChatRole::System;
    const size_t begin = out.ids.size();
    release_->append_turn(message, out.ids);
    std::vector<TokenId> header;
    release_->append_turn({message.role, std::string()}, header);  // its last token ends the turn
    const size_t content = begin + header.size() - 1, close = out.ids.size() - 1;
    out.ids.insert(out.ids.end(), release_->newline().begin(), release_->newline().end());
    const size_t end = out.ids.size();
    const bool assistant = message.role == ChatRole::Assistant && message.learn;
    out.learnt.resize(end, 0);
    const auto learn = [&](size_t from, size_t to) {
      std::fill(out.learnt.begin() + static_cast<ptrdiff_t>(from),
                out.learnt.begin() + static_cast<ptrdiff_t>(to), uint8_t{1});
    };
    switch (mask_) {
      case ChatMask::Memo:
        learn(begin, end);
        if (message.role == ChatRole::User || !message.learn) {
          std::fill(out.learnt.begin() + static_cast<ptrdiff_t>(content),
                    out.learnt.begin() + static_cast<ptrdiff_t>(close), uint8_t{0});
        }
        break;
      case ChatMask::Release:
        learn(begin, begin + 1);
        learn(assistant ? content : close, end);
        break;
      case ChatMask::Assistant:
        if (assistant) learn(content, close + 1);
        break;
    }
    if (mask_ != ChatMask::Memo && !conversation.results.empty()) {
      const std::string text = message.text();
      const auto from = out.ids.begin() + static_cast<ptrdiff_t>(content);
      const std::vector<TokenId> ids(from, out.ids.begin() + static_cast<ptrdiff_t>(close));
      const TokenPlaces places(tokenizer_, text, ids);
      std::vector<uint8_t> own(ids.size(), 1);
      for (const auto& result : conversation.results) {
        if (result.message == number + (headless && number >= first ? 1 : 0))
          places.mark({result.begin, result.end}, own, 0);
      }
      for (size_t i = 0; i < own.size(); ++i) out.learnt[content + i] &= own[i];
    }
    out.turns.emplace_back(begin, end);
  }
  return out;
}

LabelledChat ChatLabeller::by_template(const ReactConversation& conversation,
                                       const OrderedJson& tools) const {
  const TemplatedChat::Input input = templated_->input_of(
      {.messages = conversation.messages, .tools = tools, .add_generation_prompt = false});
  const MarkedText text = templated_->render_marked(input);
  LabelledChat out;
  out.ids = templated_->encode(text);
  const TokenPlaces places(tokenizer_, text.bytes(), out.ids);
  const Spans spans = assistant_spans(*templated_, tokenizer_, text);
  out.learnt.assign(out.ids.size(), mask_ == ChatMask::Memo ? 1 : 0);
  if (mask_ == ChatMask::Memo) {
    for (const auto& span : stretches(text, [&](const auto& origin) {
           return !origin.literal && is_user(conversation, origin.message);
         })) {
      places.mark(span, out.learnt, 0);
    }
  } else {
    // Messages of weight 0 have their place among the assistant's, in order.
    std::vector<bool> learn;
    for (const Message& message : conversation.messages) {
      if (message.role == ChatRole::Assistant) learn.push_back(message.learn);
    }
    for (size_t i = 0; i < spans.size(); ++i) {
      if (spans.size() != learn.size() || learn[i]) places.mark(spans[i], out.learnt, 1);
    }
  }
  for (const auto& result : conversation.results) {
    if (mask_ == ChatMask::Memo) break;
    const std::string content = conversation.messages[result.message].text();
    const auto at = place_of(text, static_cast<uint32_t>(result.message + 1), content);
    if (!at) {
      throw_bad_input(
          "the chat template changes the assistant's words, so that results of tools "
          "cannot be told from them",
          "name another --chat-template, or --mask memo");
    }
    places.mark({*at + result.begin, *at + result.end}, out.learnt, 0);
  }
  if (mask_ == ChatMask::Release) {
    for (size_t i = 0; i < out.ids.size(); ++i) {
      if (tokenizer_.is_special(out.ids[i])) out.learnt[i] = 1;
    }
  }
  // A turn includes the token that ends it and the line break after that.
  const std::string end = templated_->turn_ends().empty()
                              ? std::string()
                              : std::string(tokenizer_.token_bytes(templated_->turn_ends()[0]));
  size_t begin = 0;
  for (size_t at = 0;
       !end.empty() && (at = find_literal(text, end, at)) != std::string_view::npos;) {
    at += end.size();
    const size_t mark_end = at;
    if (at < text.size() && text.bytes()[at] == '\n') ++at;
    const size_t stop = places.tokens_before(at);
    if (mask_ == ChatMask::Release) places.mark({mark_end, at}, out.learnt, 1);
    if (stop > begin) out.turns.emplace_back(begin, stop);
    begin = stop;
  }
  if (begin < out.ids.size()) out.turns.emplace_back(begin, out.ids.size());
  return out;
}

LabelledChat ChatLabeller::label(const Conversation& conversation) const {
  const auto calls = [](const Message& message) {
    return message.role == ChatRole::Tool || !message.tool_calls.empty();
  };
  const bool has_tools = conversation.tools.is_array() && !conversation.tools.items.empty();
  const bool react =
      !knows_tools_ && (has_tools || std::ranges::any_of(conversation.messages, calls));
  const ReactConversation turns =
      react
          ? react_conversation(conversation.tools, conversation.messages,
                               std::string(kDefaultSystem))
          : ReactConversation{.messages = conversation.messages, .continues = false, .results = {}};
  LabelledChat out = release_ != nullptr
                         ? by_release(turns)
                         : by_template(turns, react ? OrderedJson() : conversation.tools);
  if (std::find(out.learnt.begin(), out.learnt.end(), uint8_t{1}) == out.learnt.end()) {
    throw_bad_input("nothing of the conversation would be learnt");
  }
  return out;
}

std::optional<LabelledChat> ChatLabeller::label(const Conversation& conversation,
                                                int64_t max_length, LongChat when_long) const {
  LabelledChat out = label(conversation);
  const auto size = [&] { return static_cast<int64_t>(out.ids.size()); };
  if (size() <= max_length) return out;
  if (when_long == LongChat::Error) {
    throw_bad_input(
        fmt::format("the conversation has {} tokens, at most {} are taken", size(), max_length),
        "use --long drop or cut, or a larger --max-length");
  }
  if (when_long == LongChat::Drop) {
    Conversation shorter = conversation;
    while (size() > max_length) {
      if (!drop_oldest(shorter.messages)) return std::nullopt;
      out = label(shorter);
    }
  } else {
    out.ids.resize(static_cast<size_t>(max_length));
    out.learnt.resize(out.ids.size());
    while (!out.turns.empty() && out.turns.back().first >= out.ids.size()) out.turns.pop_back();
    if (!out.turns.empty())
      out.turns.back().second = std::min(out.turns.back().second, out.ids.size());
    if (std::find(out.learnt.begin(), out.learnt.end(), uint8_t{1}) == out.learnt.end()) {
      return std::nullopt;  // what is learnt was cut off
    }
  }
  out.truncated = true;
  return out;
}

}  // namespace quern
