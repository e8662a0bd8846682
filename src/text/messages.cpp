#include "text/messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/field_error.h"

namespace quern {
namespace {

constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant",
                                                    "tool"};
// Reasoning travels under three names; the first is the one that is written.
constexpr std::array<std::string_view, 3> kReasoning = {"reasoning_content", "thinking",
                                                        "reasoning"};
// Members that clients send along and that mean nothing to a model of text.
constexpr std::array<std::string_view, 9> kBookkeeping = {
    "type",          "id",     "status",       "annotations", "refusal", "audio",
    "cache_control", "weight", "function_call"};
constexpr int kArgumentsDepth = 64;

const char* type_name(const OrderedJson& value) {
  switch (value.kind) {
    case OrderedJson::Kind::Null:
      return "null";
    case OrderedJson::Kind::Bool:
      return "a boolean";
    case OrderedJson::Kind::Integer:
    case OrderedJson::Kind::Float:
      return "a number";
    case OrderedJson::Kind::String:
      return "a string";
    case OrderedJson::Kind::Array:
      return "an array";
    case OrderedJson::Kind::Object:
      return "an object";
  }
  return "";
}

// A value and its path, for messages.
struct Field {
  const OrderedJson& value;
  std::string where;

  [[noreturn]] void fail(const std::string& problem, std::string hint = {}) const {
    throw_bad_field(where, problem, std::move(hint));
  }
  const Field& object() const {
    if (!value.is_object()) fail(fmt::format("is {}, expected an object", type_name(value)));
    return *this;
  }
  const std::string& string() const {
    if (!value.is_string()) fail(fmt::format("is {}, expected a string", type_name(value)));
    return value.text;
  }
  // A member that is there and not null.
  std::optional<Field> find(std::string_view key) const {
    const OrderedJson* member = value.find(key);
    if (member == nullptr || member->is_null()) return std::nullopt;
    return Field{*member, fmt::format("{}.{}", where, key)};
  }
  Field at(std::string_view key) const {
    auto member = find(key);
    if (!member) fail(fmt::format("lacks the member '{}'", key));
    return std::move(*member);
  }
  Field operator[](size_t index) const {
    return {value.items[index], fmt::format("{}[{}]", where, index)};
  }
  std::string string_or_empty(std::string_view key) const {
    const auto member = find(key);
    return member ? member->string() : std::string();
  }
};

template <class... Lists>
void only_members(const Field& field, const MessageRules& rules, const Lists&... known) {
  if (!rules.refuse_unknown) return;
  for (const auto& [key, value] : field.value.members) {
    if (value.is_null()) continue;  // says nothing
    if ((... || (std::find(std::begin(known), std::end(known), key) != std::end(known)))) continue;
    field.fail(fmt::format("has the member '{}', which is not known", printable(key, 80)));
  }
}

ContentPart read_part(const Field& part, const MessageRules& rules) {
  if (part.value.is_string()) return {.text = part.value.text};
  const Field type = part.object().at("type");
  const std::string& kind = type.string();
  constexpr std::array<std::string_view, 6> kKnown = {"type",     "text",        "refusal",
                                                      "logprobs", "annotations", "cache_control"};
  if (kind == "text" || kind == "input_text" || kind == "output_text") {
    only_members(part, rules, kKnown);
    return {.text = part.at("text").string()};
  }
  if (kind == "refusal") {
    only_members(part, rules, kKnown);
    return {.text = part.at("refusal").string()};
  }
  type.fail(fmt::format("is '{}'", printable(kind, 40)),
            "this model reads parts of type text only");
}

std::vector<ContentPart> read_content(const Field& content, const MessageRules& rules) {
  if (content.value.is_string()) return {{.text = content.value.text}};
  if (!content.value.is_array()) {
    content.fail(
        fmt::format("is {}, expected a string or a list of parts", type_name(content.value)));
  }
  std::vector<ContentPart> parts;
  for (size_t i = 0; i < content.value.items.size(); ++i) {
    parts.push_back(read_part(content[i], rules));
  }
  if (parts.empty()) parts.emplace_back();
  return parts;
}

ToolCall read_tool_call(const Field& call, const MessageRules& rules) {
  call.object();
  ToolCall out;
  out.id = call.string_or_empty("id");
  const auto function = call.find("function");
  if (const auto type = call.find("type"); type && type->string() != "function") {
    type->fail(fmt::format("is '{}', expected function", printable(type->value.text, 40)));
  }
  constexpr std::array<std::string_view, 2> kFunction = {"name", "arguments"};
  if (function) {
    constexpr std::array<std::string_view, 4> kKnown = {"id", "type", "function", "index"};
    only_members(call, rules, kKnown);
    only_members(function->object(), rules, kFunction);
  } else {
    constexpr std::array<std::string_view, 4> kKnown = {"id", "type", "name", "arguments"};
    only_members(call, rules, kKnown);
  }
  const Field& named = function ? *function : call;
  const Field name = named.at("name");
  out.name = name.string();
  if (out.name.empty()) name.fail("is empty");
  if (const auto arguments = named.find("arguments")) {
    if (!arguments->value.is_object() && !arguments->value.is_string()) {
      arguments->fail(fmt::format("is {}, expected an object, or a string that holds one",
                                  type_name(arguments->value)));
    }
    out.arguments = arguments->value;
  } else {
    out.arguments.kind = OrderedJson::Kind::Object;
  }
  return out;
}

bool learnt(const Field& item) {
  const auto weight = item.find("weight");
  if (!weight) return true;
  const OrderedJson& value = weight->value;
  if (value.kind == OrderedJson::Kind::Integer && (value.text == "0" || value.text == "1")) {
    return value.text == "1";
  }
  if (value.kind == OrderedJson::Kind::Float && (value.number == 0 || value.number == 1)) {
    return value.number == 1;
  }
  weight->fail("is neither 0 nor 1", "a message is learnt or not; shares are not known");
}

}  // namespace

std::string_view name(ChatRole role) noexcept { return kRoles[static_cast<size_t>(role)]; }

std::optional<ChatRole> role_of(std::string_view name) noexcept {
  for (size_t i = 0; i < kRoles.size(); ++i) {
    if (kRoles[i] == name) return static_cast<ChatRole>(i);
  }
  return std::nullopt;
}

std::string Message::text() const {
  std::string all;
  for (const ContentPart& part : parts) all += part.text;
  return all;
}

Message read_message(const OrderedJson& value, const std::string& where,
                     const MessageRules& rules) {
  const Field item{value, where};
  constexpr std::array<std::string_view, 5> kKnown = {"role", "content", "name", "tool_calls",
                                                      "tool_call_id"};
  only_members(item.object(), rules, kKnown, kReasoning, kBookkeeping);
  if (const auto type = item.find("type"); type && type->string() != "message") {
    type->fail("is not message, the only kind that is known here");
  }
  if (const auto old = item.find("function_call")) {
    old->fail("is the older form of a call", "write it as tool_calls");
  }
  Message out;
  const Field role = item.at("role");
  const auto known = role_of(role.string());
  if (!known) {
    role.fail(fmt::format("is '{}', expected system, developer, user, assistant or tool",
                          printable(role.value.text, 40)));
  }
  out.role = *known;
  out.name = item.string_or_empty("name");
  out.learn = learnt(item);
  for (const std::string_view key : kReasoning) {
    const auto reasoning = item.find(key);
    if (!reasoning || !out.reasoning_content.empty()) continue;
    if (!reasoning->value.is_string() && key == "reasoning") continue;  // an object of settings
    out.reasoning_content = reasoning->string();
  }
  if (const auto calls = item.find("tool_calls")) {
    if (!calls->value.is_array()) {
      calls->fail(fmt::format("is {}, expected a list", type_name(calls->value)));
    }
    if (out.role != ChatRole::Assistant && !calls->value.items.empty()) {
      calls->fail(fmt::format("stands in a message of the role {}, only the assistant calls tools",
                              name(out.role)));
    }
    for (size_t i = 0; i < calls->value.items.size(); ++i) {
      out.tool_calls.push_back(read_tool_call((*calls)[i], rules));
    }
  }
  out.tool_call_id = item.string_or_empty("tool_call_id");
  if (const auto content = item.find("content")) {
    out.parts = read_content(*content, rules);
  } else if (const auto refusal = item.find("refusal")) {
    out.parts = {{.text = refusal->string()}};
  } else if (out.tool_calls.empty()) {
    // The assistant may have nothing to say; another's message without a content is a mistake.
    if (out.role != ChatRole::Assistant || item.value.find("content") == nullptr)
      item.at("content");
    out.parts.emplace_back();
  }
  return out;
}

std::vector<Message> read_messages(const OrderedJson& list, const std::string& where,
                                   const MessageRules& rules) {
  const Field field{list, where};
  if (!list.is_array()) {
    field.fail(fmt::format("is {}, expected a list of messages", type_name(list)));
  }
  if (list.items.empty()) field.fail("is empty");
  if (list.items.size() > rules.max_messages) {
    field.fail(fmt::format("has {} messages, at most {} are taken", list.items.size(),
                           rules.max_messages));
  }
  std::vector<Message> messages;
  for (size_t i = 0; i < list.items.size(); ++i) {
    messages.push_back(read_message(list.items[i], fmt::format("{}[{}]", where, i), rules));
  }
  return messages;
}

OrderedJson to_json(const Message& message) {
  OrderedJson out;
  out.set("role", OrderedJson::of_string(std::string(name(message.role))));
  if (!message.parts.empty()) out.set("content", OrderedJson::of_string(message.text()));
  if (!message.name.empty()) out.set("name", OrderedJson::of_string(message.name));
  if (!message.reasoning_content.empty()) {
    out.set("reasoning_content", OrderedJson::of_string(message.reasoning_content));
  }
  if (!message.tool_calls.empty()) {
    OrderedJson calls;
    calls.kind = OrderedJson::Kind::Array;
    for (const ToolCall& call : message.tool_calls) {
      OrderedJson entry, function;
      if (!call.id.empty()) entry.set("id", OrderedJson::of_string(call.id));
      entry.set("type", OrderedJson::of_string("function"));
      function.set("name", OrderedJson::of_string(call.name));
      function.set("arguments", call.arguments);
      entry.set("function", std::move(function));
      calls.items.push_back(std::move(entry));
    }
    out.set("tool_calls", std::move(calls));
  }
  if (!message.tool_call_id.empty()) {
    out.set("tool_call_id", OrderedJson::of_string(message.tool_call_id));
  }
  return out;
}

OrderedJson arguments_object(const ToolCall& call, const std::string& where) {
  if (call.arguments.is_object()) return call.arguments;
  const Field field{call.arguments, where};
  if (field.string().empty()) {
    OrderedJson none;
    none.kind = OrderedJson::Kind::Object;
    return none;
  }
  OrderedJson read = OrderedJson::parse(field.string(), where, {.max_depth = kArgumentsDepth});
  if (!read.is_object()) {
    field.fail(fmt::format("holds {}, expected an object", type_name(read)));
  }
  return read;
}

}  // namespace quern
