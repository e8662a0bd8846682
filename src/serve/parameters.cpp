#include "serve/parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <vector>

#include "core/error.h"

namespace quern::serve {
namespace {

using enum Parameter::Type;
constexpr double kMaxInt = 2147483647;
constexpr double kAnyInt = 9.3e18;  // every int64
constexpr uint8_t kSampled = Chat | Text | Responses | Messages;
constexpr uint8_t kTalk = Chat | Responses | Messages;
constexpr uint8_t kAll = Chat | Text | Embeddings | Responses | Messages;

constexpr Parameter kParameters[] = {
    {"model", kAll, Other, 0, 0, "name of the model; the first one when absent"},
    {"messages", Chat | Messages, Other, 0, 0,
     "the conversation; an assistant's message at its end is gone on with"},
    {"system", Messages, Other, 0, 0, "the system message, a text or parts"},
    {"prompt", Text, Other, 0, 0, "a text, a list of token ids, or a list of either, at most 64"},
    {"suffix", Text, Other, 0, 0,
     "a text that follows the answer, for models whose vocabulary has <|fim_prefix|>, "
     "<|fim_suffix|> "
     "and <|fim_middle|>"},
    {"input", Embeddings | Responses, Other, 0, 0,
     "embeddings: a text, a list of token ids, or a list of either; responses: a text or items"},
    {"instructions", Responses, Other, 0, 0, "the system message"},
    {"max_tokens", Chat | Text | Messages, Integer, -1, kMaxInt,
     "new tokens at most; -1 or absent: what the context has room for, 16 for completions"},
    {"max_completion_tokens", Chat, Integer, -1, kMaxInt, "the newer name of `max_tokens`"},
    {"max_output_tokens", Responses, Integer, 1, kMaxInt, "new tokens at most"},
    {"min_tokens", Chat | Text, Integer, 0, kMaxInt,
     "no token that ends the answer comes before so many others"},
    {"stream", kSampled, Boolean, 0, 0, "answer as server-sent events"},
    {"stream_options", Chat | Text, Other, 0, 0,
     "`include_usage`: a last event with the counts; `continuous_usage_stats`: counts in each"},
    {"n", Chat | Text, Integer, 1, 16, "choices for each prompt"},
    {"best_of", Text, Integer, 1, 16,
     "choices made, of which the `n` with the highest mean log-probability are returned"},
    {"temperature", kSampled, Number, 0, 2, "divides the logits; 0 is greedy"},
    {"top_p", kSampled, Number, 0, 1, "keep the fewest tokens that reach this probability"},
    {"top_k", kSampled, Integer, -1, kMaxInt, "keep the k most likely tokens; 0 and -1 are off"},
    {"min_p", kSampled, Number, 0, 1, "keep tokens this likely beside the likeliest; 0 is off"},
    {"typical_p", kSampled, Number, 0, 1, "locally typical sampling; 1 is off"},
    {"presence_penalty", Chat | Text, Number, -2, 2, "subtracted once for an earlier use"},
    {"frequency_penalty", Chat | Text, Number, -2, 2, "subtracted for each earlier use"},
    {"repetition_penalty", kSampled, Number, 0.01, 10, "for ids seen before; 1 is off"},
    {"no_repeat_ngram_size", Chat | Text, Integer, 0, 1000, "no n-gram twice; 0 is off"},
    {"logit_bias", Chat | Text, Other, 0, 0,
     "object of token ids and what is added to their logits, -100 to 100; at most 1,024"},
    {"seed", kSampled, Integer, -kAnyInt, kAnyInt,
     "of the random numbers; the answer says which one was used"},
    {"stop", Chat | Text, Other, 0, 0,
     "a text, or at most 16, that end the answer and are not shown; each of at most 256 bytes"},
    {"stop_sequences", Messages, Other, 0, 0, "as `stop`, a list"},
    {"stop_token_ids", Chat | Text, Other, 0, 0, "ids that end the answer, at most 64"},
    {"ignore_eos", Chat | Text, Boolean, 0, 0, "go on past end-of-text tokens"},
    {"logprobs", Chat | Text, Other, 0, 20,
     "chat: true for the log-probability of each token; completions: of so many likeliest, too"},
    {"top_logprobs", Chat, Integer, 0, 20, "with `logprobs`: of so many likeliest tokens, too"},
    {"echo", Text, Boolean, 0, 0, "the prompt comes before the answer"},
    {"prompt_logprobs_from", Text, Integer, 1, kMaxInt,
     "with `echo` and `logprobs`: log-probabilities of the prompt's tokens from this one on, the "
     "first being 0; what stands before is shared with other requests"},
    {"parse_special", Text, Boolean, 0, 0,
     "names of control tokens in the prompt become control tokens; without it they are text"},
    {"tools", kTalk, Other, 0, 0, "functions that the model may call"},
    {"tool_choice", kTalk, Other, 0, 0, "none, auto, required (any), or one function by its name"},
    {"parallel_tool_calls", Chat | Responses, Boolean, 0, 0, "false: one call at most"},
    {"reasoning_effort", Chat, Other, 0, 0,
     "none or minimal: without thinking; low, medium, high and so on: with it, and told to the "
     "chat template"},
    {"reasoning", Responses, Other, 0, 0, "`effort`, as `reasoning_effort` of chat"},
    {"thinking", Messages, Other, 0, 0,
     "`type`: enabled, adaptive or disabled; `budget_tokens` and `display` are taken and not used"},
    {"chat_template_kwargs", Chat, Other, 0, 0, "variables of the model's chat template"},
    {"continue_final_message", Chat, Boolean, 0, 0,
     "whether an assistant's message at the end is gone on with; true by default"},
    {"response_format", Chat | Text, Other, 0, 0,
     "`type`: text, json_object, json_schema (`json_schema.schema`), regex (`regex`) or grammar "
     "(`grammar`, in GBNF)"},
    {"guided_json", Chat | Text, Other, 0, 0, "a JSON Schema, as response_format has it"},
    {"guided_regex", Chat | Text, Other, 0, 0, "a regular expression"},
    {"guided_choice", Chat | Text, Other, 0, 0, "a list of texts, one of which is the answer"},
    {"guided_grammar", Chat | Text, Other, 0, 0, "a grammar in GBNF"},
    {"text", Responses, Other, 0, 0,
     "`format`, as `response_format` of chat; `verbosity` is taken and not used"},
    {"store", Responses | Chat, Boolean, 0, 0, "false only: nothing is stored"},
    {"modalities", Chat, Other, 0, 0, "[\"text\"] only"},
    {"truncation", Responses, Other, 0, 0, "disabled only: nothing is cut in silence"},
    {"encoding_format", Embeddings, Other, 0, 0, "float or base64"},
    {"dimensions", Embeddings, Integer, 1, kMaxInt,
     "the first so many numbers, scaled to length 1 again"},
    {"user", kAll, Ignored, 0, 0, "taken and not used"},
    {"metadata", kTalk, Ignored, 0, 0, "taken and not used"},
    {"service_tier", kTalk, Ignored, 0, 0, "taken and not used"},
    {"prompt_cache_key", Chat | Responses, Ignored, 0, 0, "taken and not used"},
    {"prompt_cache_retention", Chat | Responses, Ignored, 0, 0, "taken and not used"},
    {"safety_identifier", Chat | Responses, Ignored, 0, 0, "taken and not used"},
    {"verbosity", Chat, Ignored, 0, 0, "taken and not used"},
    {"include", Responses, Other, 0, 0,
     "message.output_text.logprobs is refused; whatever else is taken and not used"},
};

std::string_view place(Where where) {
  switch (where) {
    case Chat:
      return "chat completions";
    case Text:
      return "completions";
    case Embeddings:
      return "embeddings";
    case Responses:
      return "responses";
    case Messages:
      return "messages";
  }
  return "";
}

}  // namespace

Parameters::Parameters(const Json& body, Where where, std::vector<std::string>* lenient)
    : body_(body), where_(where) {
  std::vector<std::string_view> names;
  for (const Parameter& parameter : kParameters) {
    if ((parameter.where & where) != 0) names.push_back(parameter.name);
  }
  if (!body.is_object()) body.fail("is not a JSON object");
  for (const auto& [name, value] : body.members()) {
    if (value.is_null() || std::ranges::find(names, name) != names.end()) continue;
    if (lenient != nullptr) {
      lenient->push_back(name);
      continue;
    }
    const std::string guess = nearest(name, names);
    value.fail(fmt::format("is not a parameter of {}", place(where)),
               guess.empty() ? "" : "did you mean '" + guess + "'?");
  }
}

const Parameter& Parameters::known(std::string_view name) const {
  const auto found = std::ranges::find(kParameters, name, &Parameter::name);
  assert(found != std::end(kParameters) && (found->where & where_) != 0);
  return *found;
}

std::optional<int64_t> Parameters::integer(std::string_view name) const {
  const Parameter& parameter = known(name);
  const auto value = body_.find(name);
  if (!value) return std::nullopt;
  constexpr double kLargest = 9.2e18;  // beyond it a double has no exact integers to compare with
  return value->integer(
      parameter.min <= -kLargest ? INT64_MIN : static_cast<int64_t>(parameter.min),
      parameter.max >= kLargest ? INT64_MAX : static_cast<int64_t>(parameter.max));
}

std::optional<double> Parameters::number(std::string_view name) const {
  const Parameter& parameter = known(name);
  const auto value = body_.find(name);
  if (!value) return std::nullopt;
  return value->number(parameter.min, parameter.max);
}

bool Parameters::boolean(std::string_view name, bool fallback) const {
  return body_.boolean_or(known(name).name, fallback);
}

Json Parameters::required(std::string_view name) const { return body_.at(known(name).name); }

void only_members(const Json& object, std::span<const std::string_view> names) {
  for (const auto& [name, value] : object.members()) {
    if (value.is_null() || std::ranges::find(names, name) != names.end()) continue;
    const std::string guess = nearest(name, names);
    value.fail("is not known here", guess.empty() ? "" : "did you mean '" + guess + "'?");
  }
}

}  // namespace quern::serve
