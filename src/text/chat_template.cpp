#include "text/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "core/error.h"
#include "text/template/python_text.h"

namespace quern {

using chat_template::MarkedText;
using chat_template::Origin;
using chat_template::Template;
using chat_template::TemplateError;
using chat_template::Value;

namespace {

// What is appended to the message to be continued, and found again in the result by its origin. The
// word and its space are those of transformers: a template that trims does the same to both.
constexpr std::string_view kContinueTag = "CONTINUE_FINAL_MESSAGE_TAG ";
constexpr Origin kContinueOrigin{.message = UINT32_MAX};
constexpr std::string_view kReasoning[] = {"reasoning_content", "thinking", "reasoning"};
// Templates write these between '<|' and '|>': the words that roles are, and none of a user's own.
const std::unordered_set<std::string_view>& known_roles() {
  static const std::unordered_set<std::string_view> kRoles = {
      "system", "developer", "user",        "assistant",   "tool",     "function",
      "model",  "ipython",   "observation", "environment", "document", "documents"};
  return kRoles;
}

Template parsed(const std::string& text, const std::string& where) {
  try {
    return Template(text);
  } catch (const TemplateError& failure) {
    throw TemplateError(failure.cause(), where + ": " + failure.problem());
  }
}

// Special tokens alone: <think> and its kin are found in any text.
template <class Token>
bool is_control(const Token& token) {
  if constexpr (requires { token.special; }) return token.special;
  return true;
}

OrderedJson object() {
  OrderedJson out;
  out.kind = OrderedJson::Kind::Object;
  return out;
}

// A message as the template sees it.
Value message_value(const OrderedJson& message, uint32_t number, const std::string& continued) {
  if (!message.is_object()) {
    chat_template::fail_type("Chat messages should be dicts, dataclasses or pydantic models");
  }
  const Origin origin{.message = number};
  auto dict = std::make_shared<chat_template::Dict>();
  const OrderedJson* reasoning = nullptr;
  for (const std::string_view key : kReasoning) {
    const OrderedJson* found = message.find(key);
    if (reasoning == nullptr && found != nullptr && !found->is_null()) reasoning = found;
  }
  const auto set = [&](std::string_view key, Value value) {
    dict->set(MarkedText(key, chat_template::kLiteral), std::move(value));
  };
  if (reasoning != nullptr) set("thinking", from_json(*reasoning, origin));
  for (const auto& [key, value] : message.members) {
    if (value.is_null()) continue;
    const bool role = key == "role" && value.is_string() && known_roles().contains(value.text);
    set(key, from_json(value, role ? chat_template::kLiteral : origin));
  }
  if (reasoning != nullptr) set("reasoning_content", from_json(*reasoning, origin));
  if (continued.empty()) return dict;

  const auto tagged = [&](const Value& value) -> Value {
    MarkedText text = *value.as_text();
    text.append(kContinueTag, kContinueOrigin);
    return text;
  };
  const Value* field = dict->find(std::string_view(continued));
  if (field == nullptr) {
    chat_template::fail_value(fmt::format(
        "continue_final_message is set but the final message has no \"{}\" to continue!",
        printable(continued, 40)));
  }
  if (field->as_text() != nullptr) {
    const Value before = *field;
    set(continued, tagged(before));
    // Reasoning goes under several names: whichever one the template reads is continued.
    if (std::find(std::begin(kReasoning), std::end(kReasoning), continued) !=
        std::end(kReasoning)) {
      for (const std::string_view key : kReasoning) {
        const Value* other = dict->find(key);
        if (other != nullptr && equal(*other, before)) set(key, tagged(before));
      }
    }
    return dict;
  }
  if (const chat_template::Sequence* parts = field->as_sequence()) {
    auto changed = std::make_shared<chat_template::Sequence>(*parts);
    for (size_t i = changed->items.size(); i-- > 0;) {
      const chat_template::Dict* part = changed->items[i].as_dict();
      const Value* text = part != nullptr ? part->find(std::string_view("text")) : nullptr;
      if (text == nullptr || text->as_text() == nullptr) continue;
      auto with_tag = std::make_shared<chat_template::Dict>(*part);
      with_tag->set(MarkedText("text", chat_template::kLiteral), tagged(*text));
      changed->items[i] = std::move(with_tag);
      set(continued, std::move(changed));
      return dict;
    }
  }
  chat_template::fail_value(
      "continue_final_message is set but we could not find any text to continue in the final "
      "message!");
}

// Without the tag and all that follows it.
MarkedText cut_at_tag(const MarkedText& text) {
  size_t tag = std::string_view::npos;
  for (const MarkedText::Run& run : text.runs()) {
    if (run.origin.message == kContinueOrigin.message) tag = run.begin;
  }
  const std::string_view word = kContinueTag.substr(0, kContinueTag.size() - 1);
  if (tag == std::string_view::npos || !text.bytes().substr(tag).starts_with(word)) {
    chat_template::fail_value(
        "continue_final_message is set but the final message does not appear in the chat after "
        "applying the chat template! This can happen if the chat template deletes portions of the "
        "final message.");
  }
  // Where the tag's space was trimmed, the message's own white space at its end would have been.
  if (text.bytes().substr(tag).starts_with(kContinueTag)) return text.sub(0, tag);
  const std::string_view kept = text.bytes().substr(0, tag);
  return text.sub(0, strip(kept, chat_template::Side::Right).end);
}

}  // namespace

TemplatedChat::TemplatedChat(const Tokenizer& tokenizer, ChatTemplateText text)
    : tokenizer_(tokenizer), text_(std::move(text)), template_(parsed(text_.text, text_.where)) {
  if (!text_.with_tools.empty()) {
    with_tools_ = std::make_unique<Template>(parsed(text_.with_tools, text_.where));
  }
  for (const SpecialToken& token : tokenizer.specials()) {
    if (is_control(token) && !token.name.empty()) controls_.push_back(token.name);
  }
  std::stable_sort(controls_.begin(), controls_.end(),
                   [](const auto& a, const auto& b) { return a.size() > b.size(); });
  for (const std::string& name : controls_) {
    if (first_bytes_.find(name[0]) == first_bytes_.npos) first_bytes_ += name[0];
  }
  probe();
}

MarkedText TemplatedChat::render_marked(const Input& input) const {
  // An empty conversation is a template's to render; there is nothing in it to go on with.
  if (!input.messages.is_array() ||
      (input.messages.items.empty() && !input.continue_field.empty())) {
    chat_template::fail_value(
        "Cannot apply chat template to an empty conversation. Provide at least one message.");
  }
  if (input.add_generation_prompt && !input.continue_field.empty()) {
    chat_template::fail_value(
        "continue_final_message and add_generation_prompt are not compatible");
  }
  const bool has_tools = !input.tools.is_null();
  const Template& chosen = has_tools && with_tools_ ? *with_tools_ : template_;
  if (!input.continue_field.empty() && !chosen.mentions(input.continue_field)) {
    chat_template::fail_value(
        fmt::format("continue_final_message is set to \"{}\" but this is not an accepted field in "
                    "the chat_template",
                    printable(input.continue_field, 40)));
  }
  auto messages = std::make_shared<chat_template::Sequence>();
  const auto& items = input.messages.items;
  for (size_t i = 0; i < items.size(); ++i) {
    const bool last = i + 1 == items.size();
    messages->items.push_back(message_value(items[i], static_cast<uint32_t>(i + 1),
                                            last ? input.continue_field : std::string()));
    messages->depth = std::max(messages->depth, messages->items.back().depth() + 1);
    messages->weight =
        chat_template::add_weights(messages->weight, messages->items.back().weight());
  }
  // The first of a name counts: what a request sets stands before the tokens' names.
  chat_template::Variables variables;
  variables.emplace_back("messages", chat_template::SequencePointer(messages));
  variables.emplace_back("tools", from_json(input.tools, chat_template::kForeign));
  variables.emplace_back("documents", from_json(input.documents, chat_template::kForeign));
  variables.emplace_back("add_generation_prompt", input.add_generation_prompt);
  for (const auto& [name, value] : input.variables.members) {
    variables.emplace_back(name, from_json(value, chat_template::kForeign));
  }
  for (const auto& [name, content] : text_.tokens) {
    variables.emplace_back(name, MarkedText(content, chat_template::kLiteral));
  }
  const auto now =
      input.now ? chat_template::parse_local_time(*input.now) : chat_template::local_time_now();
  // Long conversations may take longer; what a message costs is still bounded.
  chat_template::TemplateLimits limits;
  limits.steps += 32 * messages->weight;
  MarkedText text = chosen.render(variables, now, limits);
  return input.continue_field.empty() ? text : cut_at_tag(text);
}

RenderedChat TemplatedChat::render(const Input& input) const {
  const MarkedText text = render_marked(input);
  RenderedChat out;
  out.ids = encode(text);
  out.text = std::string(text.bytes());
  return out;
}

TemplatedChat::Input TemplatedChat::input_of(const ChatPrompt& prompt) const {
  Input input{.tools = prompt.tools,
              .documents = prompt.documents,
              .variables = prompt.variables,
              .add_generation_prompt = prompt.add_generation_prompt,
              .continue_field = prompt.continue_final_message ? "content" : "",
              .now = {}};
  if (!input.variables.is_object()) input.variables = object();
  if (prompt.thinking) {
    input.variables.set("enable_thinking", OrderedJson::of_bool(*prompt.thinking));
  }
  input.messages.kind = OrderedJson::Kind::Array;
  for (size_t i = 0; i < prompt.messages.size(); ++i) {
    Message message = prompt.messages[i];
    for (size_t call = 0; call < message.tool_calls.size(); ++call) {
      OrderedJson& arguments = message.tool_calls[call].arguments;
      const std::string where = fmt::format("messages[{}].tool_calls[{}].arguments", i, call);
      if (!text_arguments_) {
        arguments = arguments_object(message.tool_calls[call], where);
      } else if (arguments.is_object()) {
        arguments = OrderedJson::of_string(python_dumps(arguments));
      }
    }
    input.messages.items.push_back(to_json(message));
  }
  return input;
}

RenderedChat TemplatedChat::render(const ChatPrompt& prompt) const {
  Input input = input_of(prompt);
  try {
    return render(input);
  } catch (const TemplateError& failure) {
    // A call without words has no content here; some templates want an empty one.
    bool mended = false;
    for (OrderedJson& message : input.messages.items) {
      if (message.find("content") != nullptr) continue;
      message.set("content", OrderedJson::of_string(""));
      mended = true;
    }
    if (failure.cause() == TemplateError::Cause::Raise || !mended) throw;
  }
  return render(input);
}

size_t TemplatedChat::control_at(std::string_view text, size_t at) const {
  if (first_bytes_.find(text[at]) == first_bytes_.npos) return 0;
  const std::string_view rest = text.substr(at);
  const auto found = std::find_if(controls_.begin(), controls_.end(),
                                  [&](const std::string& name) { return rest.starts_with(name); });
  return found == controls_.end() ? 0 : found->size();
}

std::vector<TokenId> TemplatedChat::encode(const MarkedText& text) const {
  const std::string_view bytes = text.bytes();
  const auto literal = [&](size_t begin, size_t end) {
    for (size_t at = begin; at < end; ++at) {
      if (!text.origin_at(at).literal) return false;
    }
    return true;
  };
  std::vector<TokenId> ids, newline;
  tokenizer_.encode("\n", newline);
  size_t begin = 0;
  // Pieces past the first are not the begin of a text: a tokenizer that puts a space there is given
  // a line break first, which is taken away again.
  const auto put = [&](std::string_view piece, const SpecialPolicy& policy, bool inner) {
    if (piece.empty()) return;
    if (inner && tokenizer_.leads_with_space()) {
      const auto with = tokenizer_.encode("\n" + std::string(piece), policy);
      if (with.size() >= newline.size() &&
          std::equal(newline.begin(), newline.end(), with.begin())) {
        ids.insert(ids.end(), with.begin() + static_cast<ptrdiff_t>(newline.size()), with.end());
        return;
      }
    }
    const auto encoded = tokenizer_.encode(piece, policy);
    ids.insert(ids.end(), encoded.begin(), encoded.end());
  };
  // What stands between two control tokens of the template is one piece of text; where it holds the
  // name of a control token, no name in it is read as one.
  size_t left = 0;      // behind the last control token
  bool forged = false;  // a name stands in the piece that begins there
  const auto close = [&](size_t right) {
    if (!forged) return;
    put(bytes.substr(begin, left - begin), SpecialPolicy::all(), begin > 0);
    put(bytes.substr(left, right - left), SpecialPolicy(), left > 0);
    begin = right;
    forged = false;
  };
  for (size_t at = 0; at < bytes.size();) {
    const size_t size = control_at(bytes, at);
    if (size > 0 && literal(at, at + size)) {
      close(at);
      left = at + size;
    } else if (size > 0) {
      forged = true;
    }
    at += std::max<size_t>(size, 1);
  }
  close(bytes.size());
  put(bytes.substr(begin), SpecialPolicy::all(), begin > 0);
  return ids;
}

// Renders two conversations of its own, to learn what the template's answers begin and end with and
// how it wants arguments. A template that refuses them is asked nothing more.
void TemplatedChat::probe() {
  constexpr std::string_view kQuestion = "quern-question", kAnswer = "quern-answer";
  const auto message = [](std::string_view role, std::string_view content) {
    OrderedJson out = object();
    out.set("role", OrderedJson::of_string(std::string(role)));
    out.set("content", OrderedJson::of_string(std::string(content)));
    return out;
  };
  Input input;
  input.variables = object();
  input.messages.kind = OrderedJson::Kind::Array;
  input.messages.items = {message("user", kQuestion)};
  try {
    const std::string asked(render_marked(input).bytes());
    input.add_generation_prompt = true;
    const std::string prompted(render_marked(input).bytes());
    if (prompted.starts_with(asked)) generation_prompt_ = prompted.substr(asked.size());
    input.add_generation_prompt = false;
    input.messages.items.push_back(message("assistant", kAnswer));
    const MarkedText answered = render_marked(input);
    const size_t at = answered.bytes().rfind(kAnswer);
    for (size_t end = at; at != std::string_view::npos && end < answered.size(); ++end) {
      const size_t size = control_at(answered.bytes(), end);
      if (size == 0) continue;
      if (const auto id = tokenizer_.special(answered.bytes().substr(end, size))) {
        ends_.push_back(*id);
      }
      break;
    }
  } catch (const TemplateError&) {
  }
  if (!template_.mentions("tool_calls")) return;
  try {
    OrderedJson call = OrderedJson::parse(
        R"([{"id": "call00000", "type": "function", "function": {"name": "quern_name",
            "arguments": {"quern_key": "quern_value"}}}])",
        "probe");
    OrderedJson calling = message("assistant", "");
    calling.set("tool_calls", std::move(call));
    input.messages.items = {message("user", kQuestion), std::move(calling)};
    const std::string text(render_marked(input).bytes());
    text_arguments_ = text.find("{'quern_key'") != text.npos;
  } catch (const TemplateError& failure) {
    text_arguments_ = failure.cause_name() == "other: TypeError";
  }
}

}  // namespace quern
