// A model's own chat template as a ChatFormat: found in its files, run by text/template, encoded so
// that control tokens come from the template alone.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/file.h"
#include "text/chat_format.h"
#include "text/template/template.h"

namespace quern {

// A template's text and what it may know of its model.
struct ChatTemplateText {
  std::string text;
  std::string with_tools;  // the one for conversations with tools, where the model has two
  std::string where;       // the file, for messages
  // bos_token, eos_token, ...: the names that templates use, and the tokens' contents.
  std::vector<std::pair<std::string, std::string>> tokens;
};

// What a model's files say: chat_template.jinja, chat_template of tokenizer_config.json (a text, or
// a list of named ones) or of chat_template.json, or a GGUF file's metadata, the first in this order.
// An empty `text` where there is none; `tokens` are there all the same. Throws BadInput for files
// that are not what they should be.
ChatTemplateText find_chat_template(const fs::path& model);

// The one that a user names: a built-in name, or a file. Throws Misused with the names that are
// known where it is neither.
ChatTemplateText named_chat_template(const std::string& name, const fs::path& model);
const std::vector<std::string_view>& builtin_chat_templates();  // their names
std::string_view builtin_chat_template(std::string_view name);  // empty where there is none

// Writes the template of the first Qwen releases, which have it in their program alone, into the
// folder of a new checkpoint whose vocabulary has ChatML's tokens and that has no template yet.
void save_release_template(const Tokenizer& tokenizer, const fs::path& folder);

class TemplatedChat : public ChatFormat {
 public:
  // Throws BadInput, with the file's name in front, for a template with a mistake.
  TemplatedChat(const Tokenizer& tokenizer, ChatTemplateText text);

  RenderedChat render(const ChatPrompt& prompt) const override;
  const std::vector<TokenId>& turn_ends() const noexcept override { return ends_; }
  std::string_view title() const noexcept override { return "the chat template"; }

  // The same from messages in JSON, given to the template as they are, as transformers does: keys
  // whose value is null are dropped, reasoning_content, thinking and reasoning stand for one
  // another.
  struct Input {
    OrderedJson messages, tools, documents, variables;
    bool add_generation_prompt = false;
    std::string continue_field;  // of the last message, to be continued; empty: none
    std::optional<std::string> now;
  };
  RenderedChat render(const Input& input) const;
  // Without its ids: the text, and where each of its bytes came from.
  chat_template::MarkedText render_marked(const Input& input) const;
  Input input_of(const ChatPrompt& prompt) const;

  // Names of special tokens become tokens where the template wrote them, all of them; anywhere else
  // they are encoded as text.
  std::vector<TokenId> encode(const chat_template::MarkedText& text) const;

  // What the assistant's answer begins with, as far as the template writes it: the end that
  // add_generation_prompt adds.
  const std::string& generation_prompt() const noexcept { return generation_prompt_; }
  bool has_generation() const noexcept { return template_.has_generation(); }
  const std::string& source() const noexcept { return template_.source(); }

 private:
  void probe();
  size_t control_at(std::string_view text, size_t at) const;

  const Tokenizer& tokenizer_;
  ChatTemplateText text_;
  chat_template::Template template_;
  std::unique_ptr<chat_template::Template> with_tools_;
  std::vector<std::string> controls_;  // names, longest first
  std::string first_bytes_;            // of the names
  std::vector<TokenId> ends_;
  std::string generation_prompt_;
  bool text_arguments_ = false;  // tool calls' arguments are wanted as JSON text, not as objects
};

}  // namespace quern
