// Reads and checks a request for generated text: the body's JSON in, prompts as ids and
// settings out.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "generate/model.h"
#include "generate/request.h"
#include "grammar/grammar.h"
#include "serve/body.h"
#include "serve/parameters.h"
#include "serve/reply_reader.h"
#include "serve/tools.h"

namespace quern::serve {

struct LoadedModel;

struct Plan {
  Where where = Chat;
  std::string model;  // the name to answer under
  std::vector<std::vector<TokenId>> prompts;
  Request base;      // without its ids
  int64_t seed = 0;  // as it came
  int64_t n = 1, best_of = 1;
  int64_t min_tokens = 0;  // before so many no token that ends the answer is chosen
  bool stream = false, echo = false;
  bool include_usage = false, usage_everywhere = false;
  bool logprobs = false;  // are wanted in the answer
  bool prompt_logprobs = false;
  std::string format;  // the type of format that the answer is kept to; empty for none
  // How replies of a conversation are read; completions are text alone.
  ReplyRules reply;
  ToolUse tools;
  // Control tokens that mark calls or reasoning in a reply: they are read as text.
  std::vector<std::pair<TokenId, std::string>> marks;
  // Fields of the request that responses repeat.
  std::optional<std::string> instructions;
  std::optional<int64_t> max_tokens;
  // Keeps the choices to the format; null for none.
  std::shared_ptr<Automaton> automaton;
  std::vector<std::string> ignored;  // parameters that were not known, where that is allowed
};

// Limits of reliability: how much one request may ask for.
constexpr size_t kMaxPrompts = 64;
constexpr size_t kMaxStops = 16, kMaxStopBytes = 256, kMaxStopIds = 64;
constexpr size_t kMaxBiases = 1024;

struct PlanRules {
  int64_t context = 0;   // the server's, which may be shorter than the model's
  bool lenient = false;  // unknown parameters are left out
};

// One for each API. Throw BadInput naming the parameter.
Plan plan_chat(const Body& body, LoadedModel& model, const PlanRules& rules);
Plan plan_text(const Body& body, LoadedModel& model, const PlanRules& rules);
Plan plan_response(const Body& body, LoadedModel& model, const PlanRules& rules);
Plan plan_messages(const Body& body, LoadedModel& model, const PlanRules& rules);

// A text, ids, or a list of either, as prompts. Names of control tokens are text unless
// `parse_special`.
std::vector<std::vector<TokenId>> prompts_of(const Json& value, const Model& model,
                                             bool parse_special);

// Throws ApiException context_length_exceeded with both counts for a prompt of more than `most`
// ids.
void check_fits(const std::vector<TokenId>& prompt, int64_t most, int64_t context,
                const std::string& name);

// ---- What the plans share ----

Plan begin_plan(const Parameters& given, const Model& model);
// temperature, top_p, seed and their like, on top of what the checkpoint says.
void read_sampling(const Parameters& given, const Model& model, Plan& plan);
void set_stops(const Json& list, Request& request);

}  // namespace quern::serve
