// Text to ids and back, and the prompts of conversations: by llama-server's paths, vLLM's, and those
// of lm-evaluation-harness's remote tokenizer.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/field_error.h"
#include "core/utf8.h"
#include "serve/api.h"
#include "serve/conversation.h"
#include "serve/tools.h"

namespace quern::serve {
namespace {

using nlohmann::ordered_json;

// The prompt of a conversation on the routes beside chat: messages, tools, variables of the template.
ConversationPrompt prompt_of(const Body& body, const LoadedModel& model) {
  Conversation conversation;
  const OrderedJson* list = body.find("messages");
  if (list == nullptr) body.fields.at("messages");
  conversation.messages = chat_messages(*list);
  conversation.tools = offered_tools(body, Chat).offered;
  set_variables(body, conversation);
  return conversation_prompt(conversation, model.model, "messages");
}

// A piece as llama-server shows it: text, or the bytes of what is no UTF-8.
ordered_json piece_of(const Tokenizer& tokenizer, TokenId id) {
  const std::string_view bytes = bytes_of(tokenizer, id);
  if (utf8::is_valid(bytes)) return std::string(bytes);
  ordered_json list = ordered_json::array();
  for (const char byte : bytes) list.push_back(static_cast<unsigned char>(byte));
  return list;
}

// Throws BadInput naming a member of /tokenize that has no meaning beside the others.
void check_tokenize(const Body& body) {
  const auto refuse = [&](const char* name, const std::string& problem) {
    if (body.find(name) != nullptr) body.fields.at(name).fail(problem);
  };
  if (body.find("messages") != nullptr) {
    for (const char* name : {"content", "prompt"}) refuse(name, "is given together with messages");
    for (const char* name : {"parse_special", "add_special", "add_special_tokens"}) {
      // The template sets its own marks: false asks for nothing else.
      if (body.fields.boolean_or(name, false)) refuse(name, "is given together with messages");
    }
    return;
  }
  for (const char* name : {"tools", "chat_template_kwargs"}) refuse(name, "goes with messages");
  if (body.find("content") != nullptr) refuse("prompt", "is given together with content");
  if (body.find("add_special_tokens") != nullptr) {
    refuse("add_special", "is given together with add_special_tokens");
  }
}

void tokenize(const Call& call, const Body& body, const LoadedModel& model) {
  constexpr std::string_view kKnown[] = {"model",
                                         "content",
                                         "prompt",
                                         "messages",
                                         "tools",
                                         "chat_template_kwargs",
                                         "parse_special",
                                         "with_pieces",
                                         "return_token_strs",
                                         "add_special",
                                         "add_special_tokens"};
  only_members(body.fields, kKnown);
  const Tokenizer& tokenizer = model.model.tokenizer();
  std::vector<TokenId> ids;
  check_tokenize(body);
  if (body.find("messages") != nullptr) {
    ids = prompt_of(body, model).ids;
  } else {
    // Puts the token that begins a text there on request only: add_special is llama-server's name,
    // whose default is false too; lm-evaluation-harness always sends add_special_tokens.
    const bool special =
        body.fields.boolean_or("add_special_tokens", body.fields.boolean_or("add_special", false));
    if (special && tokenizer.bos()) ids.push_back(*tokenizer.bos());
    const auto content = body.fields.find("content");
    const std::vector<TokenId> text = tokenizer.encode(
        content ? content->string() : body.fields.at("prompt").string(),
        body.fields.boolean_or("parse_special", false) ? SpecialPolicy::all() : SpecialPolicy());
    ids.insert(ids.end(), text.begin(), text.end());
  }
  ordered_json out = {{"count", ids.size()}, {"max_model_len", model.worker.context()}};
  if (body.fields.boolean_or("with_pieces", false)) {
    out["tokens"] = ordered_json::array();
    for (const TokenId id : ids) {
      out["tokens"].push_back({{"id", id}, {"piece", piece_of(tokenizer, id)}});
    }
  } else {
    out["tokens"] = ids;
  }
  if (body.fields.boolean_or("return_token_strs", false)) {
    out["token_strs"] = ordered_json::array();
    for (const TokenId id : ids) out["token_strs"].push_back(token_text(tokenizer, id));
  }
  call.respond(out);
}

void detokenize(const Call& call, const Body& body, const LoadedModel& model) {
  constexpr std::string_view kKnown[] = {"model", "tokens"};
  only_members(body.fields, kKnown);
  const Tokenizer& tokenizer = model.model.tokenizer();
  std::vector<TokenId> ids;
  for (const Json& id : body.fields.at("tokens").items()) {
    ids.push_back(static_cast<TokenId>(id.integer(0, tokenizer.size() - 1)));
  }
  const std::string text = tokenizer.decode(ids);
  call.respond({{"content", text}, {"prompt", text}});
}

// The special tokens of the vocabulary.
void tokenizer_info(const Call& call, const LoadedModel& model) {
  const Tokenizer& tokenizer = model.model.tokenizer();
  const auto name = [&](std::optional<TokenId> id) {
    return id ? ordered_json(std::string(tokenizer.token_bytes(*id))) : ordered_json();
  };
  const auto number = [](std::optional<TokenId> id) {
    return id ? ordered_json(*id) : ordered_json();
  };
  // Without an end-of-text token, the token that ends an answer takes its place.
  std::optional<TokenId> eos = tokenizer.eos();
  const StopRules stop = model.model.default_stop();
  if (!eos && !stop.ids.empty()) eos = stop.ids[0];
  call.respond({{"tokenizer_class", "quern"},
                {"vocab_size", tokenizer.size()},
                {"model_max_length", model.worker.context()},
                {"bos_token", name(tokenizer.bos())},
                {"bos_token_id", number(tokenizer.bos())},
                {"eos_token", name(eos)},
                {"eos_token_id", number(eos)},
                {"pad_token", name(eos)},
                {"pad_token_id", number(eos)},
                {"add_bos_token", tokenizer.bos().has_value()},
                {"chat_template", model.model.is_chat() ? "default" : ""}});
}

void count_messages(const Call& call, const Body& body, LoadedModel& model) {
  const Plan plan = plan_messages(body, model, {.context = INT64_MAX, .lenient = false});
  call.respond({{"input_tokens", plan.prompts[0].size()}});
}

}  // namespace

void Api::add_token_endpoints(std::vector<Endpoint>& out) {
  using Answer = std::function<void(const Call&, const Body&, LoadedModel&)>;
  const auto add = [&](std::string_view pattern, Answer answer) {
    out.push_back({"POST", pattern, [this, answer = std::move(answer)](const Call& call) {
                     const Body body = Body::parse(call.request().body);
                     const auto model = model_of(body);
                     answer(call, body, *model);
                   }});
  };
  for (const char* path : {"/tokenize", "/v1/tokenize"}) add(path, tokenize);
  for (const char* path : {"/detokenize", "/v1/detokenize"}) add(path, detokenize);
  constexpr std::string_view kConversation[] = {"model", "messages", "tools",
                                                "chat_template_kwargs"};
  add("/v1/chat/completions/input_tokens",
      [kConversation](const Call& call, const Body& body, LoadedModel& model) {
        only_members(body.fields, kConversation);
        call.respond({{"object", "response.input_tokens"},
                      {"input_tokens", prompt_of(body, model).ids.size()}});
      });
  add("/apply-template", [kConversation](const Call& call, const Body& body, LoadedModel& model) {
    only_members(body.fields, kConversation);
    const ConversationPrompt prompt = prompt_of(body, model);
    call.respond({{"prompt", prompt.text}, {"tokens", prompt.ids}});
  });
  add("/v1/messages/count_tokens", [](const Call& call, const Body& body, LoadedModel& model) {
    Body whole = body;
    // max_tokens is not asked for here.
    if (whole.find("max_tokens") == nullptr) {
      whole.tree.set("max_tokens", OrderedJson::of_integer("1"));
      whole.fields = Json::wrap(to_json_tree(whole.tree), "request");
    }
    count_messages(call, whole, model);
  });
  for (const char* path : {"/tokenizer_info", "/v1/tokenizer_info"}) {
    out.push_back(
        {"GET", path, [this](const Call& call) { tokenizer_info(call, *models_.get("")); }});
  }
}

}  // namespace quern::serve
