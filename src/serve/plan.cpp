#include "serve/plan.h"

#include <fmt/format.h>

#include <charconv>
#include <random>

#include "core/error.h"

namespace quern::serve {
namespace {

uint64_t random_seed() {
  std::random_device device;
  // 53 bits: a client that reads numbers as doubles can send it back.
  return ((uint64_t{device()} << 32) | device()) >> 11;
}

void read_stops(const Parameters& given, Request& request) {
  if (const auto stop = given.other("stop")) {
    if (stop->is_string()) {
      request.stop.strings = {stop->string()};
    } else {
      if (!stop->is_array()) stop->fail("is neither a string nor a list of strings");
      if (stop->size() > kMaxStops) {
        stop->fail(fmt::format("has {} items, at most {} are taken", stop->size(), kMaxStops));
      }
      for (const Json& item : stop->items()) request.stop.strings.push_back(item.string());
    }
    for (const std::string& text : request.stop.strings) {
      if (text.empty()) stop->fail("has an empty string");
      if (text.size() > kMaxStopBytes) {
        stop->fail(fmt::format("has a string of {} bytes, at most {} are taken", text.size(),
                               kMaxStopBytes));
      }
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
  plan.stream = given.boolean("stream");
  const auto options = given.other("stream_options");
  if (!options) return;
  if (!plan.stream) options->fail("is given, but stream is not true");
  constexpr std::string_view kKnown[] = {"include_usage", "include_obfuscation"};
  only_members(*options, kKnown);
  if (options->boolean_or("include_obfuscation", false)) {
    options->at("include_obfuscation").fail("is true, which this server does not know");
  }
  plan.include_usage = options->boolean_or("include_usage", false);
}

// Its content is read from the body's text, where a schema's members have their order still.
void read_format(const Parameters& given, Plan& plan) {
  const auto format = given.other("response_format");
  if (format) plan.format = format->at("type").string();
}

void read_common(const Parameters& given, const Model& model, Plan& plan) {
  read_streaming(given, plan);
  read_sampling(given, plan.where, model, plan.base);
  read_stops(given, plan.base);
  read_biases(given, model, plan.base);
  read_format(given, plan);
  plan.n = given.integer("n").value_or(1);
  plan.best_of = plan.n;
}

std::string content_of(const Json& content) {
  if (content.is_string()) return content.string();
  if (!content.is_array()) content.fail("is neither a string nor a list of parts");
  std::string text;
  for (const Json& part : content.items()) {
    const std::string type = part.at("type").string();
    if (type != "text" && type != "input_text" && type != "output_text") {
      part.at("type").fail(fmt::format("is '{}'", printable(type, 40)),
                           "this model reads parts of type text only");
    }
    constexpr std::string_view kKnown[] = {"type", "text", "annotations", "logprobs"};
    only_members(part, kKnown);
    text += part.at("text").string();
  }
  return text;
}

}  // namespace

void read_sampling(const Parameters& given, Where where, const Model& model, Request& request) {
  SamplingOptions& s = request.sampling;
  s = model.default_sampling();
  request.stop = model.default_stop();
  const auto set = [](auto& field, const auto& value) {
    if (value) field = *value;
    return value.has_value();
  };
  bool named = set(s.temperature, given.number("temperature"));
  named |= set(s.top_p, given.number("top_p"));
  named |= set(s.top_k, given.integer("top_k"));
  named |= set(s.min_p, given.number("min_p"));
  named |= set(s.typical_p, given.number("typical_p"));
  if (named) s.greedy = false;  // whoever names a way of sampling wants to sample
  set(s.repetition_penalty, given.number("repetition_penalty"));
  if (where != Responses) {
    set(s.presence_penalty, given.number("presence_penalty"));
    set(s.frequency_penalty, given.number("frequency_penalty"));
    set(s.no_repeat_ngram, given.integer("no_repeat_ngram_size"));
  }
  const auto seed = given.integer("seed");
  s.seed = seed ? static_cast<uint64_t>(*seed) : random_seed();
  s.check();
}

std::vector<Message> messages_of(const Json& list, const std::string* instructions) {
  if (!list.is_array()) list.fail("is not a list of messages");
  if (list.size() == 0) list.fail("is empty");
  if (list.size() > kMaxMessages) {
    list.fail(fmt::format("has {} messages, at most {} are taken", list.size(), kMaxMessages));
  }
  std::vector<Message> messages;
  if (instructions != nullptr) messages.push_back({ChatRole::System, *instructions});
  for (const Json& item : list.items()) {
    constexpr std::string_view kKnown[] = {"role", "content", "type", "id", "status"};
    only_members(item, kKnown);
    if (item.string_or("type", "message") != "message") {
      item.at("type").fail("is not message, the only kind that is known here");
    }
    const Json role = item.at("role");
    auto who = role_of(role.string());
    if (who == ChatRole::Developer) who = ChatRole::System;
    if (!who || who == ChatRole::Tool) {
      role.fail(
          fmt::format("is '{}', expected system, user or assistant", printable(role.string(), 40)));
    }
    if (who == ChatRole::System && !messages.empty()) {
      role.fail(instructions != nullptr && messages.size() == 1
                    ? "is system, and instructions are given, too"
                    : "is system, which only the first message may be");
    }
    messages.push_back({*who, content_of(item.at("content"))});
  }
  if (messages.back().role != ChatRole::User) {
    list[list.size() - 1].at("role").fail(
        fmt::format("is {}, but the last message must be the user's", name(messages.back().role)));
  }
  return messages;
}

std::vector<TokenId> chat_prompt(const std::vector<Message>& messages, const Model& model) {
  return model.chat().render({.messages = messages}).ids;
}

std::vector<std::vector<TokenId>> prompts_of(const Json& value, const Model& model,
                                             bool parse_special) {
  const auto encode = [&](const std::string& text) {
    std::vector<TokenId> ids;
    const Tokenizer& tokenizer = model.tokenizer();
    if (tokenizer.bos()) ids.push_back(*tokenizer.bos());
    const auto encoded =
        tokenizer.encode(text, parse_special ? SpecialPolicy::all() : SpecialPolicy());
    ids.insert(ids.end(), encoded.begin(), encoded.end());
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
void put_suffix(std::vector<std::vector<TokenId>>& prompts, const Json& suffix,
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

void check_fits(const std::vector<TokenId>& prompt, int64_t context, const std::string& name) {
  const auto length = static_cast<int64_t>(prompt.size());
  if (length < context) return;
  throw_bad_input(fmt::format("request: {} has {} tokens, the context {}", name, length, context),
                  "nothing is cut in silence: shorten it");
}

Plan plan_chat(const Json& body, const Model& model, int64_t context) {
  const Parameters given(body, Chat);
  Plan plan;
  plan.where = Chat;
  if (!model.is_chat()) {
    throw_bad_input("this model knows no chat", "use /v1/completions");
  }
  read_common(given, model, plan);
  if (given.boolean("store")) body.at("store").fail("is true, but nothing is stored here");
  plan.prompts = {chat_prompt(messages_of(given.required("messages")), model)};
  check_fits(plan.prompts[0], context, "messages");
  const auto old_name = given.integer("max_tokens");
  const auto new_name = given.integer("max_completion_tokens");
  if (old_name && new_name && *old_name != *new_name) {
    body.at("max_tokens").fail("and max_completion_tokens differ");
  }
  const auto most = new_name ? new_name : old_name;
  if (most && *most == 0) {
    body.at(new_name ? "max_completion_tokens" : "max_tokens").fail("is 0, expected 1 or more");
  }
  plan.base.max_new_tokens = most.value_or(context);
  plan.base.text_start = true;
  if (const auto logprobs = given.other("logprobs")) plan.logprobs = logprobs->boolean();
  const auto top = given.integer("top_logprobs");
  if (top && !plan.logprobs) body.at("top_logprobs").fail("is given, but logprobs is not true");
  if (plan.logprobs) plan.base.top_logprobs = top.value_or(0);
  return plan;
}

Plan plan_text(const Json& body, const Model& model, int64_t context) {
  const Parameters given(body, Text);
  Plan plan;
  plan.where = Text;
  read_common(given, model, plan);
  const Json prompt = given.required("prompt");
  plan.prompts = prompts_of(prompt, model, given.boolean("parse_special"));
  plan.echo = given.boolean("echo");
  if (const auto suffix = given.other("suffix")) {
    if (plan.echo) suffix->fail("is given with echo, which would repeat it before the answer");
    put_suffix(plan.prompts, *suffix, model);
  }
  for (const auto& ids : plan.prompts) check_fits(ids, context, "prompt");
  plan.base.max_new_tokens = given.integer("max_tokens").value_or(16);
  if (plan.base.max_new_tokens == 0 && !plan.echo) {
    body.at("max_tokens").fail("is 0, which makes sense with echo only");
  }
  plan.best_of = given.integer("best_of").value_or(plan.n);
  if (plan.best_of < plan.n) {
    body.at("best_of").fail(fmt::format("is {}, less than n, which is {}", plan.best_of, plan.n));
  }
  if (plan.stream && plan.best_of > plan.n) {
    body.at("best_of").fail("is more than n, which cannot be streamed");
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
  if (plan.best_of > plan.n) {
    plan.base.top_logprobs = std::max<int64_t>(plan.base.top_logprobs, 0);
  }
  return plan;
}

Plan plan_response(const Json& body, const Model& model, int64_t context) {
  const Parameters given(body, Responses);
  Plan plan;
  plan.where = Responses;
  if (!model.is_chat()) {
    throw_bad_input("this model knows no chat", "use /v1/completions");
  }
  plan.stream = given.boolean("stream");
  read_sampling(given, Responses, model, plan.base);
  if (given.boolean("store")) body.at("store").fail("is true, but nothing is stored here");
  if (const auto text = given.other("text")) {
    constexpr std::string_view kKnown[] = {"format"};
    only_members(*text, kKnown);
    if (const auto format = text->find("format")) plan.format = format->at("type").string();
  }
  if (const auto instructions = given.other("instructions")) {
    plan.instructions = instructions->string();
  }
  const std::string* system = plan.instructions ? &*plan.instructions : nullptr;
  const Json input = given.required("input");
  std::vector<Message> messages;
  if (input.is_string()) {
    if (system != nullptr) messages.push_back({ChatRole::System, *system});
    messages.push_back({ChatRole::User, input.string()});
  } else {
    messages = messages_of(input, system);
  }
  plan.prompts = {chat_prompt(messages, model)};
  check_fits(plan.prompts[0], context, "input");
  plan.max_tokens = given.integer("max_output_tokens");
  plan.base.max_new_tokens = plan.max_tokens.value_or(context);
  plan.base.text_start = true;
  return plan;
}

}  // namespace quern::serve
