#include "serve/plan.h"

#include <fmt/format.h>

#include <charconv>
#include <random>

#include "core/field_error.h"
#include "serve/api_error.h"
#include "serve/conversation.h"
#include "serve/format.h"
#include "serve/models.h"

namespace quern::serve {
namespace {

int64_t random_seed() {
  std::random_device device;
  // 53 bits: a client that reads numbers as doubles can send it back.
  return static_cast<int64_t>(((uint64_t{device()} << 32) | device()) >> 11);
}

void read_stops(const Parameters& given, Request& request) {
  if (const auto stop = given.other("stop")) {
    if (stop->is_string()) {
      request.stop.strings = {stop->string()};
      if (stop->string().empty()) stop->fail("has an empty string");
      if (stop->string().size() > kMaxStopBytes) {
        stop->fail(fmt::format("has {} bytes, at most {} are taken", stop->string().size(),
                               kMaxStopBytes));
      }
    } else {
      set_stops(*stop, request);
    }
  }
  if (const auto ids = given.other("stop_token_ids")) {
    if (ids->size() > kMaxStopIds) {
      ids->fail(fmt::format("has {} items, at most {} are taken", ids->size(), kMaxStopIds));
    }
    for (const Json& id : ids->items()) {
      request.stop.ids.push_back(static_cast<TokenId>(id.integer(0, INT32_MAX)));
    }
  }
  request.stop.ignore_ids = given.boolean("ignore_eos");
}

void read_biases(const Parameters& given, const Model& model, Request& request) {
  const auto biases = given.other("logit_bias");
  if (!biases) return;
  if (!biases->is_object()) biases->fail("is not an object of token ids and biases");
  if (biases->size() > kMaxBiases) {
    biases->fail(fmt::format("has {} entries, at most {} are taken", biases->size(), kMaxBiases));
  }
  for (const auto& [name, value] : biases->members()) {
    TokenId id = -1;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), id);
    const bool good = parsed.ec == std::errc() && parsed.ptr == name.data() + name.size();
    if (!good || id < 0 || id >= model.config().output_vocab) {
      biases->fail(fmt::format("names the token '{}'", printable(name, 40)),
                   fmt::format("expected an id from 0 to {}", model.config().output_vocab - 1));
    }
    request.sampling.logit_bias.emplace_back(id, static_cast<float>(value.number(-100, 100)));
  }
}

void read_streaming(const Parameters& given, Plan& plan) {
  const auto options = given.other("stream_options");
  if (!options) return;
  if (!plan.stream) options->fail("is given, but stream is not true");
  constexpr std::string_view kKnown[] = {"include_usage", "include_obfuscation",
                                         "continuous_usage_stats"};
  only_members(*options, kKnown);
  if (options->boolean_or("include_obfuscation", false)) {
    options->at("include_obfuscation").fail("is true, which this server does not know");
  }
  plan.usage_everywhere = options->boolean_or("continuous_usage_stats", false);
  plan.include_usage = options->boolean_or("include_usage", false) || plan.usage_everywhere;
}

// What chat and completions share.
void read_common(const Parameters& given, const Model& model, Plan& plan) {
  read_streaming(given, plan);
  read_stops(given, plan.base);
  read_biases(given, model, plan.base);
  plan.n = given.integer("n").value_or(1);
  plan.best_of = plan.n;
  if (const auto least = given.integer("min_tokens")) plan.min_tokens = *least;
}

// -1 is as absent.
std::optional<int64_t> most_tokens(const Parameters& given, const char* name) {
  const auto most = given.integer(name);
  return most && *most == -1 ? std::nullopt : most;
}

void check_least(const Parameters& given, const Plan& plan) {
  if (plan.min_tokens <= plan.base.max_new_tokens) return;
  given.body()
      .at("min_tokens")
      .fail(fmt::format("is {}, more than the {} new tokens that there may be", plan.min_tokens,
                        plan.base.max_new_tokens));
}

// Without thinking, with it, or as the template says.
void set_effort(const Json& effort, Conversation& conversation) {
  constexpr std::string_view kKnown[] = {"none", "minimal", "low", "medium",
                                         "high", "xhigh",   "max"};
  const std::string& word = effort.string();
  if (std::ranges::find(kKnown, word) == std::end(kKnown)) {
    effort.fail(fmt::format("is '{}', expected none, minimal, low, medium, high, xhigh or max",
                            printable(word, 40)));
  }
  conversation.thinking = word != "none" && word != "minimal";
  conversation.effort = word;
}

void refuse_storing(const Parameters& given) {
  if (given.boolean("store")) given.body().at("store").fail("is true, but nothing is stored here");
}

// The prompt, how the reply is to be read, and what it is kept to.
void plan_reply(const Body& body, const Parameters& given, const Conversation& conversation,
                LoadedModel& loaded, const std::string& field, const PlanRules& rules, Plan& plan) {
  const Model& model = loaded.model;
  const Tokenizer& tokenizer = model.tokenizer();
  const ConversationPrompt prompt = conversation_prompt(conversation, model, field);
  plan.prompts = {prompt.ids};
  check_fits(plan.prompts[0], rules.context - 1, rules.context, field);
  plan.base.text_start = !prompt.continues;
  std::string_view end = prompt.text;
  while (!end.empty() && (end.back() == '\n' || end.back() == ' ')) end.remove_suffix(1);
  plan.reply.in_reasoning = !prompt.continues && end.ends_with("<think>");
  plan.reply.reasoning =
      !prompt.continues && tokenizer.special("<think>").has_value() && !end.ends_with("</think>");
  if (prompt.react && plan.tools.any()) {
    plan.reply = {.in_reasoning = prompt.continues, .tools = ToolStyle::React};
    plan.base.text_start = true;
    if (!plan.tools.constrains()) plan.base.stop.strings.emplace_back("Observation:");
  } else if (plan.tools.any()) {
    plan.reply.tools = call_style(tokenizer);
  }
  for (const char* mark : {"<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]",
                           "[ARGS]", "<|python_tag|>"}) {
    const auto id = tokenizer.special(mark);
    const bool of_calls = std::string_view(mark).find("think") == std::string_view::npos;
    if (id && tokenizer.is_special(*id) && !prompt.react && (!of_calls || plan.reply.tools)) {
      plan.marks.emplace_back(*id, mark);
    }
  }
  apply_format(body, given, loaded, plan);
}

Conversation conversation_of(std::vector<Message> messages, const ToolUse& tools) {
  Conversation out;
  out.messages = std::move(messages);
  out.tools = tools.offered;
  return out;
}

}  // namespace

Plan begin_plan(const Parameters& given, const Model& model) {
  Plan plan;
  plan.where = given.where();
  plan.stream = given.boolean("stream");
  read_sampling(given, model, plan);
  return plan;
}

void set_stops(const Json& list, Request& request) {
  if (!list.is_array()) list.fail("is neither a string nor a list of strings");
  if (list.size() > kMaxStops) {
    list.fail(fmt::format("has {} items, at most {} are taken", list.size(), kMaxStops));
  }
  for (const Json& item : list.items()) {
    const std::string& text = item.string();
    if (text.empty()) list.fail("has an empty string");
    if (text.size() > kMaxStopBytes) {
      list.fail(fmt::format("has a string of {} bytes, at most {} are taken", text.size(),
                            kMaxStopBytes));
    }
    request.stop.strings.push_back(text);
  }
}

void read_sampling(const Parameters& given, const Model& model, Plan& plan) {
  SamplingOptions& s = plan.base.sampling;
  s = model.default_sampling();
  plan.base.stop = model.default_stop();
  const auto set = [](auto& field, const auto& value) {
    if (value) field = *value;
    return value.has_value();
  };
  bool named = set(s.temperature, given.number("temperature"));
  named |= set(s.top_p, given.number("top_p"));
  if (const auto top_k = given.integer("top_k")) {
    s.top_k = std::max<int64_t>(*top_k, 0);
    named = true;
  }
  named |= set(s.min_p, given.number("min_p"));
  named |= set(s.typical_p, given.number("typical_p"));
  if (named) s.greedy = false;  // whoever names a way of sampling wants to sample
  set(s.repetition_penalty, given.number("repetition_penalty"));
  if (given.where() == Chat || given.where() == Text) {
    set(s.presence_penalty, given.number("presence_penalty"));
    set(s.frequency_penalty, given.number("frequency_penalty"));
    set(s.no_repeat_ngram, given.integer("no_repeat_ngram_size"));
  }
  plan.seed = given.integer("seed").value_or(random_seed());
  s.seed = static_cast<uint64_t>(plan.seed);
  s.check();
}

std::vector<std::vector<TokenId>> prompts_of(const Json& value, const Model& model,
                                             bool parse_special) {
  const auto encode = [&](const std::string& text) {
    const Tokenizer& tokenizer = model.tokenizer();
    std::vector<TokenId> ids =
        tokenizer.encode_whole(text, parse_special ? SpecialPolicy::all() : SpecialPolicy());
    // Nothing at all is the begin of a text.
    if (ids.empty() && tokenizer.eos()) ids.push_back(*tokenizer.eos());
    return ids;
  };
  const auto ids_of = [&](const Json& list) {
    std::vector<TokenId> ids;
    ids.reserve(list.size());
    for (const Json& id : list.items()) {
      ids.push_back(static_cast<TokenId>(id.integer(0, model.config().vocab - 1)));
    }
    return ids;
  };
  if (value.is_string()) return {encode(value.string())};
  if (!value.is_array()) value.fail("is neither a string nor a list");
  if (value.size() == 0) value.fail("is empty");
  if (value[0].is_number()) return {ids_of(value)};
  if (value.size() > kMaxPrompts) {
    value.fail(fmt::format("has {} prompts, at most {} are taken", value.size(), kMaxPrompts));
  }
  std::vector<std::vector<TokenId>> prompts;
  for (const Json& item : value.items()) {
    if (item.is_array() && item.size() == 0) item.fail("is empty");
    prompts.push_back(item.is_array() ? ids_of(item) : encode(item.string()));
  }
  return prompts;
}

// A prompt and what is to follow the answer, as models that fill in were trained on it.
static void put_suffix(std::vector<std::vector<TokenId>>& prompts, const Json& suffix,
                       const Model& model) {
  const Tokenizer& tokenizer = model.tokenizer();
  const auto mark = [&](const char* name) {
    const auto id = tokenizer.special(name);
    if (!id) {
      suffix.fail(fmt::format("is given, but the vocabulary has no {}", name),
                  "only a model that was trained to fill in can take it");
    }
    return *id;
  };
  const TokenId before = mark("<|fim_prefix|>"), after = mark("<|fim_suffix|>");
  const TokenId middle = mark("<|fim_middle|>");
  const std::vector<TokenId> ids = tokenizer.encode(suffix.string(), SpecialPolicy());
  for (std::vector<TokenId>& prompt : prompts) {
    prompt.insert(prompt.begin(), before);
    prompt.push_back(after);
    prompt.insert(prompt.end(), ids.begin(), ids.end());
    prompt.push_back(middle);
  }
}

void check_fits(const std::vector<TokenId>& prompt, int64_t most, int64_t context,
                const std::string& name) {
  const auto length = static_cast<int64_t>(prompt.size());
  if (length <= most) return;
  ApiError error;
  error.message = fmt::format(
      "This model's maximum context length is {} tokens, but {} has {}; nothing is cut in silence: "
      "shorten it",
      context, name, length);
  error.code = "context_length_exceeded";
  error.param = name;
  error.counts = {{"prompt_tokens", length}, {"context_tokens", context}};
  throw ApiException(error);
}

Plan plan_chat(const Body& body, LoadedModel& model, const PlanRules& rules) {
  std::vector<std::string> ignored;
  const Parameters given(body.fields, Chat, rules.lenient ? &ignored : nullptr);
  Plan plan = begin_plan(given, model.model);
  plan.ignored = ignored;
  read_common(given, model.model, plan);
  refuse_storing(given);
  if (const auto kinds = given.other("modalities")) {
    if (kinds->size() != 1 || (*kinds)[0].string() != "text") {
      kinds->fail("is not [\"text\"], the only kind that is made here");
    }
  }
  given.required("messages");
  plan.tools = tools_of(body, given);
  Conversation conversation = conversation_of(chat_messages(*body.find("messages")), plan.tools);
  conversation.go_on = given.boolean("continue_final_message", true);
  if (const auto effort = given.other("reasoning_effort")) set_effort(*effort, conversation);
  set_variables(body, conversation);
  plan_reply(body, given, conversation, model, "messages", rules, plan);
  const auto old_name = most_tokens(given, "max_tokens");
  const auto new_name = most_tokens(given, "max_completion_tokens");
  if (old_name && new_name && *old_name != *new_name) {
    body.fields.at("max_tokens").fail("and max_completion_tokens differ");
  }
  const auto most = new_name ? new_name : old_name;
  if (most && *most == 0) {
    body.fields.at(new_name ? "max_completion_tokens" : "max_tokens")
        .fail("is 0, expected 1 or more");
  }
  plan.base.max_new_tokens = most.value_or(rules.context);
  check_least(given, plan);
  if (const auto logprobs = given.other("logprobs")) plan.logprobs = logprobs->boolean();
  const auto top = given.integer("top_logprobs");
  if (top && *top > 0 && !plan.logprobs) {
    body.fields.at("top_logprobs").fail("is given, but logprobs is not true");
  }
  if (plan.logprobs) plan.base.top_logprobs = top.value_or(0);
  return plan;
}

Plan plan_text(const Body& body, LoadedModel& loaded, const PlanRules& rules) {
  const Model& model = loaded.model;
  std::vector<std::string> ignored;
  const Parameters given(body.fields, Text, rules.lenient ? &ignored : nullptr);
  Plan plan = begin_plan(given, model);
  plan.ignored = ignored;
  read_common(given, model, plan);
  const Json prompt = given.required("prompt");
  plan.prompts = prompts_of(prompt, model, given.boolean("parse_special"));
  plan.echo = given.boolean("echo");
  if (const auto suffix = given.other("suffix")) {
    if (plan.echo) suffix->fail("is given with echo, which would repeat it before the answer");
    put_suffix(plan.prompts, *suffix, model);
  }
  const auto most = most_tokens(given, "max_tokens");
  plan.base.max_new_tokens =
      given.integer("max_tokens") && !most ? rules.context : most.value_or(16);
  if (plan.base.max_new_tokens == 0 && !plan.echo) {
    body.fields.at("max_tokens").fail("is 0, which makes sense with echo only");
  }
  check_least(given, plan);
  for (const auto& ids : plan.prompts) {
    const int64_t room = plan.base.max_new_tokens == 0 ? rules.context : rules.context - 1;
    check_fits(ids, room, rules.context, "prompt");
  }
  plan.best_of = given.integer("best_of").value_or(plan.n);
  if (plan.best_of < plan.n) {
    body.fields.at("best_of").fail(
        fmt::format("is {}, less than n, which is {}", plan.best_of, plan.n));
  }
  if (plan.stream && plan.best_of > plan.n) {
    body.fields.at("best_of").fail("is more than n, which cannot be streamed");
  }
  if (const auto logprobs = given.other("logprobs")) {
    plan.logprobs = true;
    plan.base.top_logprobs = logprobs->integer(0, 20);
    plan.prompt_logprobs = plan.echo;
    if (plan.echo && plan.stream) {
      logprobs->fail("is given with echo, whose log-probabilities cannot be streamed");
    }
    if (plan.echo) plan.base.prompt_logprobs = plan.base.top_logprobs;
  }
  if (const auto from = given.integer("prompt_logprobs_from")) {
    const Json where = body.fields.at("prompt_logprobs_from");
    if (!plan.prompt_logprobs) where.fail("is given without echo and logprobs");
    for (const auto& ids : plan.prompts) {
      if (*from >= static_cast<int64_t>(ids.size())) {
        where.fail(fmt::format("is {}, but a prompt has {} tokens", *from, ids.size()));
      }
    }
    plan.base.prompt_logprobs_from = *from;
  }
  if (plan.best_of > plan.n) {
    plan.base.top_logprobs = std::max<int64_t>(plan.base.top_logprobs, 0);
  }
  apply_format(body, given, loaded, plan);
  return plan;
}

Plan plan_response(const Body& body, LoadedModel& model, const PlanRules& rules) {
  std::vector<std::string> ignored;
  const Parameters given(body.fields, Responses, rules.lenient ? &ignored : nullptr);
  Plan plan = begin_plan(given, model.model);
  plan.ignored = ignored;
  refuse_storing(given);
  if (const auto truncation = given.other("truncation")) {
    if (truncation->string() != "disabled")
      truncation->fail("is not disabled: nothing is cut here");
  }
  if (const auto text = given.other("text")) {
    constexpr std::string_view kKnown[] = {"format", "verbosity"};
    only_members(*text, kKnown);
  }
  if (const auto instructions = given.other("instructions")) {
    plan.instructions = instructions->string();
  }
  if (const auto include = given.other("include")) {
    // The others are about tools and storage that are not here.
    for (const Json& item : include->items()) {
      if (item.string() == "message.output_text.logprobs") {
        item.fail("asks for log-probabilities, which responses do not have here",
                  "chat completions have them");
      }
    }
  }
  const Json input = given.required("input");
  if (!input.is_string() && !input.is_array())
    input.fail("is neither a string nor a list of items");
  plan.tools = tools_of(body, given);
  Conversation conversation =
      conversation_of(response_messages(*body.find("input"), plan.instructions), plan.tools);
  if (conversation.messages.empty()) input.fail("has no message");
  if (const auto reasoning = given.other("reasoning")) {
    constexpr std::string_view kKnown[] = {"effort", "summary", "generate_summary"};
    only_members(*reasoning, kKnown);
    if (const auto effort = reasoning->find("effort")) set_effort(*effort, conversation);
  }
  plan_reply(body, given, conversation, model, "input", rules, plan);
  plan.max_tokens = given.integer("max_output_tokens");
  plan.base.max_new_tokens = plan.max_tokens.value_or(rules.context);
  return plan;
}

Plan plan_messages(const Body& body, LoadedModel& model, const PlanRules& rules) {
  std::vector<std::string> ignored;
  const Parameters given(body.fields, Messages, rules.lenient ? &ignored : nullptr);
  Plan plan = begin_plan(given, model.model);
  plan.ignored = ignored;
  if (const auto stops = given.other("stop_sequences")) set_stops(*stops, plan.base);
  given.required("messages");
  const auto most = most_tokens(given, "max_tokens");
  if (!most) given.required("max_tokens").fail("is -1, expected 1 or more");
  if (*most == 0) given.required("max_tokens").fail("is 0, expected 1 or more");
  plan.base.max_new_tokens = *most;
  plan.tools = tools_of(body, given);
  Conversation conversation =
      conversation_of(anthropic_messages(*body.find("messages"), body.find("system")), plan.tools);
  if (conversation.messages.empty()) given.required("messages").fail("has no message");
  if (const auto thinking = given.other("thinking")) {
    constexpr std::string_view kKnown[] = {"type", "budget_tokens", "display"};
    only_members(*thinking, kKnown);
    const std::string& type = thinking->at("type").string();
    if (type != "enabled" && type != "disabled" && type != "adaptive") {
      thinking->at("type").fail("is neither enabled, adaptive nor disabled");
    }
    conversation.thinking = type != "disabled";
  }
  plan_reply(body, given, conversation, model, "messages", rules, plan);
  return plan;
}

}  // namespace quern::serve
