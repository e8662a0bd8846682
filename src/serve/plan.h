// What a request for generated text asks for, checked: the body's JSON in, prompts as ids and
// settings out.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "generate/model.h"
#include "generate/request.h"
#include "grammar/grammar.h"
#include "serve/parameters.h"
#include "text/chat_format.h"

namespace quern::serve {

struct Plan {
  Where where = Chat;
  std::string model;  // the name to answer under
  std::vector<std::vector<TokenId>> prompts;
  Request base;  // without its ids
  int64_t n = 1, best_of = 1;
  bool stream = false, include_usage = false, echo = false;
  bool logprobs = false;  // are wanted in the answer
  bool prompt_logprobs = false;
  std::string format;  // type of what the answer is kept to; empty for none
  // What responses repeat of their request.
  std::optional<std::string> instructions;
  std::optional<int64_t> max_tokens;
  // What keeps the choices to the format; null for none.
  std::shared_ptr<Automaton> automaton;
};

// Limits of reliability: how much one request may ask for.
constexpr size_t kMaxPrompts = 64;
constexpr size_t kMaxMessages = 4096;
constexpr size_t kMaxStops = 16, kMaxStopBytes = 256, kMaxStopIds = 64;
constexpr size_t kMaxBiases = 1024;

// `context` is the server's, which may be shorter than the model's. Throw BadInput naming the
// parameter.
Plan plan_chat(const Json& body, const Model& model, int64_t context);
Plan plan_text(const Json& body, const Model& model, int64_t context);
Plan plan_response(const Json& body, const Model& model, int64_t context);

// A conversation from its JSON: roles system (developer), user and assistant, contents a text or
// parts of type text.
// A system message given as `instructions` stands in front of it.
std::vector<Message> messages_of(const Json& list, const std::string* instructions = nullptr);
// Its prompt, with no turn left out.
std::vector<TokenId> chat_prompt(const std::vector<Message>& messages, const Model& model);

// A text, ids, or a list of either, as prompts. Names of control tokens are text unless
// `parse_special`.
std::vector<std::vector<TokenId>> prompts_of(const Json& value, const Model& model,
                                             bool parse_special);

// The error for a prompt that does not fit, with both counts.
void check_fits(const std::vector<TokenId>& prompt, int64_t context, const std::string& name);

// temperature, top_p, seed and their like, on top of what the checkpoint says.
void read_sampling(const Parameters& given, Where where, const Model& model, Request& request);

}  // namespace quern::serve
