// The lines of quern tokenize --jsonl that ask for a conversation's prompt.
#pragma once

#include <memory>
#include <string>

#include "core/ordered_json.h"
#include "text/chat_template.h"

namespace quern::cli {

class ChatLines {
 public:
  // By the model's own template, or by the one that is named; by the first releases' ChatML where
  // there is neither.
  ChatLines(const Tokenizer& tokenizer, const std::string& model, const std::string& chat_template);

  // {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message",
  // "enable_thinking", "chat_template_kwargs", "now"} to {"ids", "text"}; {"error", "kind"} where the
  // template fails. Throws BadInput for a line that is not of this form.
  OrderedJson answer(const OrderedJson& request, const std::string& where);

 private:
  const TemplatedChat* templated();  // null for the releases' ChatML
  OrderedJson release_answer(const OrderedJson& request, const std::string& where) const;

  const Tokenizer& tokenizer_;
  std::string model_, name_;
  bool looked_ = false;
  std::unique_ptr<TemplatedChat> templated_;
};

}  // namespace quern::cli
