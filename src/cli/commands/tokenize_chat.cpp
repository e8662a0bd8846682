#include "cli/commands/tokenize_chat.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "text/chatml.h"

namespace quern::cli {
namespace {

constexpr std::string_view kKnown[] = {"messages", "tools", "documents", "enable_thinking", "now",
                                       "add_generation_prompt", "continue_final_message",
                                       "chat_template_kwargs", "max_window_size",
                                       // What a line may carry along, as a golden does.
                                       "id", "ids", "text", "raw_text", "history_turns_kept"};

const OrderedJson* find(const OrderedJson& request, std::string_view key) {
  const OrderedJson* value = request.find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

bool flag(const OrderedJson& request, std::string_view key, bool fallback,
          const std::string& where) {
  const OrderedJson* value = find(request, key);
  if (value == nullptr) return fallback;
  if (!value->is(OrderedJson::Kind::Bool)) {
    throw_bad_input(fmt::format("{}: {} is not true or false", where, key));
  }
  return value->boolean;
}

OrderedJson ids_json(const std::vector<TokenId>& ids) {
  OrderedJson out;
  out.kind = OrderedJson::Kind::Array;
  for (const TokenId id : ids) out.items.push_back(OrderedJson::of_integer(std::to_string(id)));
  return out;
}

OrderedJson reply(const RenderedChat& chat) {
  OrderedJson out;
  out.set("ids", ids_json(chat.ids));
  out.set("text", OrderedJson::of_string(chat.text));
  return out;
}

}  // namespace

ChatLines::ChatLines(const Tokenizer& tokenizer, const std::string& model,
                     const std::string& chat_template)
    : tokenizer_(tokenizer), model_(model), name_(chat_template) {
  if (name_.empty()) return;
  try {
    templated();  // a wrong name is said before the first line
  } catch (const chat_template::TemplateError&) {
    // Every line is answered with a mistake in the template.
  }
}

const TemplatedChat* ChatLines::templated() {
  if (!looked_) {
    ChatTemplateText text =
        name_.empty() ? find_chat_template(model_) : named_chat_template(name_, model_);
    if (!text.text.empty()) {
      templated_ = std::make_unique<TemplatedChat>(tokenizer_, std::move(text));
    }
    looked_ = true;
  }
  return templated_.get();
}

OrderedJson ChatLines::release_answer(const OrderedJson& request, const std::string& where) const {
  for (const char* key : {"tools", "documents", "enable_thinking", "chat_template_kwargs", "now"}) {
    if (find(request, key) != nullptr) {
      throw_bad_input(
          fmt::format("{}: {} is given, and the model has no chat template", where, key));
    }
  }
  const ChatMl format(tokenizer_);
  const auto messages = read_messages(*find(request, "messages"), where + ": messages");
  int64_t window = kDefaultWindow;
  if (const OrderedJson* given = find(request, "max_window_size")) {
    if (!given->is(OrderedJson::Kind::Integer) || given->text.size() > 15) {
      throw_bad_input(where + ": max_window_size is not an integer");
    }
    window = std::stoll(given->text);
  }
  if (flag(request, "add_generation_prompt", true, where)) {
    RenderedChat out;
    out.ids = format.prompt(messages, window).ids;
    out.text = tokenizer_.decode(out.ids);
    return reply(out);
  }
  return reply(format.render(
      {.messages = messages,
       .add_generation_prompt = false,
       .continue_final_message = flag(request, "continue_final_message", false, where)}));
}

OrderedJson ChatLines::answer(const OrderedJson& request, const std::string& where) {
  for (const auto& [key, value] : request.members) {
    if (std::find(std::begin(kKnown), std::end(kKnown), key) != std::end(kKnown)) continue;
    const std::string guess = nearest(key, kKnown);
    throw_bad_input(fmt::format("{}: has the unknown key '{}'", where, printable(key, 80)),
                    guess.empty() ? "" : "did you mean '" + guess + "'?");
  }
  try {
    const TemplatedChat* format = templated();
    if (format == nullptr) return release_answer(request, where);
    TemplatedChat::Input input;
    input.messages = *find(request, "messages");
    input.variables.kind = OrderedJson::Kind::Object;
    if (const OrderedJson* tools = find(request, "tools")) input.tools = *tools;
    if (const OrderedJson* documents = find(request, "documents")) input.documents = *documents;
    if (const OrderedJson* variables = find(request, "chat_template_kwargs")) {
      if (!variables->is_object()) {
        throw_bad_input(where + ": chat_template_kwargs is not an object");
      }
      input.variables = *variables;
    }
    if (find(request, "enable_thinking") != nullptr) {
      input.variables.set("enable_thinking",
                          OrderedJson::of_bool(flag(request, "enable_thinking", true, where)));
    }
    input.add_generation_prompt = flag(request, "add_generation_prompt", false, where);
    if (const OrderedJson* field = find(request, "continue_final_message")) {
      if (field->is_string()) {
        input.continue_field = field->text;
      } else if (flag(request, "continue_final_message", false, where)) {
        input.continue_field = "content";
      }
    }
    if (const OrderedJson* now = find(request, "now")) {
      if (!now->is_string()) throw_bad_input(where + ": now is not a string");
      input.now = now->text;
    }
    return reply(format->render(input));
  } catch (const chat_template::TemplateError& failure) {
    OrderedJson out;
    out.set("error", OrderedJson::of_string(failure.problem()));
    out.set("kind", OrderedJson::of_string(failure.cause_name()));
    return out;
  }
}

}  // namespace quern::cli
