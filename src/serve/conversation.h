// Conversations in the forms of the three APIs, and their prompts.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "generate/model.h"
#include "serve/body.h"
#include "serve/parameters.h"
#include "text/chat_format.h"

namespace quern::serve {

// OpenAI's messages, the items of responses, Anthropic's messages with their system text. Throw
// BadInput naming the field.
std::vector<Message> chat_messages(const OrderedJson& list);
std::vector<Message> response_messages(const OrderedJson& input,
                                       const std::optional<std::string>& instructions);
std::vector<Message> anthropic_messages(const OrderedJson& list, const OrderedJson* system);

struct Conversation {
  std::vector<Message> messages;
  OrderedJson tools;      // OpenAI's form; null for none
  OrderedJson variables;  // of the chat template; null for none
  std::optional<bool> thinking;
  std::optional<std::string> effort;  // a hint that a template may know
  bool go_on = true;                  // with an assistant's message at the end
};

// chat_template_kwargs, whose enable_thinking counts before any other wish about it.
void set_variables(const Body& body, Conversation& conversation);

struct ConversationPrompt {
  std::vector<TokenId> ids;
  std::string text;        // control tokens by their names
  bool continues = false;  // it ends within an assistant's message
  bool react = false;      // tools are offered by ReAct: the model's format knows none
};

// Keeps every turn. Joins the system messages into one at the beginning where the template takes
// only that. `field` is what errors are about.
ConversationPrompt conversation_prompt(const Conversation& conversation, const Model& model,
                                       const std::string& field);

}  // namespace quern::serve
