#include "agent/reply.h"

#include <algorithm>

#include "agent/json5.h"

namespace quern {
namespace {

constexpr Json5Rules kRules = {.constants = false, .repairs = true};

void fail(ParsedReply& out, std::string error) { out.error = std::move(error); }

// A call from {"name": ..., "arguments" or "parameters": {...}}; arguments may be a string that
// holds the object.
bool take_call(const OrderedJson& object, bool repaired, ParsedReply& out) {
  const OrderedJson* name = object.find("name");
  const OrderedJson* arguments = object.find("arguments");
  if (arguments == nullptr) arguments = object.find("parameters");
  if (name == nullptr || !name->is_string() || name->text.empty() || arguments == nullptr) {
    return false;
  }
  ReplyCall call;
  call.name = name->text;
  call.repaired = repaired;
  if (arguments->is_string()) {
    call.raw = arguments->text;
    auto inner = parse_json5(arguments->text, kRules);
    if (!inner) return false;
    call.arguments = std::move(*inner);
  } else {
    call.arguments = *arguments;
    call.raw = python_dumps(*arguments);
  }
  if (!call.arguments.is_object()) return false;
  out.calls.push_back(std::move(call));
  return true;
}

// Reads one object at `at`, which moves past it.
bool read_call(std::string_view text, size_t& at, ParsedReply& out) {
  auto read = read_json5(text.substr(at), kRules);
  const bool whole = read.has_value();
  if (!whole) {
    read = read_json5(text.substr(at), {.constants = false, .repairs = true, .close_at_end = true});
  }
  if (!read || !read->value.is_object()) return false;
  at += read->end;
  return take_call(read->value, read->repaired || !whole, out);
}

// Content, thoughts and errors as every form has them.
ParsedReply finish(ParsedReply out, std::string_view before) {
  const std::string_view content = trim_json5_space(before);
  if (!out.calls.empty() || !out.error.empty()) {
    out.thought = content;
  } else if (content.empty()) {
    out.error = "empty";
  } else {
    out.final = content;
  }
  return out;
}

ParsedReply parse_hermes(std::string_view text) {
  constexpr std::string_view kOpen = "<tool_call>", kClose = "</tool_call>";
  ParsedReply out;
  const size_t first = text.find(kOpen);
  for (size_t at = first; at != std::string_view::npos; at = text.find(kOpen, at)) {
    at += kOpen.size();
    const size_t end = std::min(text.find(kClose, at), text.size());
    size_t inside = 0;
    if (!read_call(trim_json5_space(text.substr(at, end - at)), inside, out)) {
      fail(out, "bad_arguments");
      break;
    }
    at = end;
  }
  return finish(std::move(out), text.substr(0, first));
}

ParsedReply parse_llama(std::string_view text) {
  constexpr std::string_view kTag = "<|python_tag|>";
  ParsedReply out;
  size_t at = skip_json5_space(text, 0);
  const bool tagged = text.substr(at).starts_with(kTag);
  if (tagged) at = skip_json5_space(text, at + kTag.size());
  if (at >= text.size() || text[at] != '{') {
    if (tagged) fail(out, "bad_arguments");
    return finish(std::move(out), tagged ? std::string_view() : text);
  }
  while (at < text.size() && text[at] == '{') {
    if (!read_call(text, at, out)) {
      // A JSON object that is no call is an answer, such as one kept to a schema.
      if (!tagged && out.calls.empty()) return finish(std::move(out), text);
      fail(out, "bad_arguments");
      break;
    }
    at = skip_json5_space(text, at);
    if (at < text.size() && (text[at] == ';' || text[at] == ',')) {
      at = skip_json5_space(text, at + 1);
    }
  }
  return finish(std::move(out), {});
}

ParsedReply parse_mistral(std::string_view text) {
  constexpr std::string_view kMark = "[TOOL_CALLS]", kArguments = "[ARGS]", kId = "[CALL_ID]";
  ParsedReply out;
  const size_t first = text.find(kMark);
  size_t at = first;
  while (at != std::string_view::npos && out.error.empty()) {
    at = skip_json5_space(text, at + kMark.size());
    if (at < text.size() && (text[at] == '[' || text[at] == '{')) {
      const auto list = read_json5(text.substr(at), kRules);
      if (!list) {
        fail(out, "bad_arguments");
        break;
      }
      at += list->end;
      const std::vector<OrderedJson> one = {list->value};
      for (const OrderedJson& call : list->value.is_array() ? list->value.items : one) {
        if (!take_call(call, list->repaired, out)) fail(out, "bad_arguments");
      }
    } else {  // NAME[ARGS]{...}, or NAME{...}
      const size_t brace = std::min(text.find('{', at), text.size());
      std::string_view name = text.substr(at, brace - at);
      name = name.substr(0, std::min(name.find(kArguments), name.find(kId)));
      const auto read = read_json5(text.substr(brace), kRules);
      if (trim_json5_space(name).empty() || !read || !read->value.is_object()) {
        fail(out, trim_json5_space(name).empty() ? "no_action" : "bad_arguments");
        break;
      }
      out.calls.push_back({.name = std::string(trim_json5_space(name)),
                           .arguments = read->value,
                           .raw = std::string(text.substr(brace, read->end)),
                           .repaired = read->repaired});
      at = brace + read->end;
    }
    at = text.find(kMark, at);
  }
  return finish(std::move(out), text.substr(0, first));
}

}  // namespace

std::optional<ToolStyle> tool_style(std::string_view name) noexcept {
  constexpr std::pair<std::string_view, ToolStyle> kNames[] = {{"react", ToolStyle::React},
                                                               {"hermes", ToolStyle::Hermes},
                                                               {"llama", ToolStyle::Llama},
                                                               {"mistral", ToolStyle::Mistral}};
  for (const auto& [word, style] : kNames) {
    if (word == name) return style;
  }
  return std::nullopt;
}

ParsedReply parse_reply(ToolStyle style, std::string_view reply) {
  if (style == ToolStyle::React) return parse_react(reply);
  // A raw completion may still hold the end of its turn.
  for (const std::string_view end : {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>"}) {
    reply = reply.substr(0, reply.find(end));
  }
  if (reply.ends_with("</s>")) reply.remove_suffix(4);
  switch (style) {
    case ToolStyle::Hermes:
      return parse_hermes(reply);
    case ToolStyle::Llama:
      return parse_llama(reply);
    default:
      return parse_mistral(reply);
  }
}

}  // namespace quern
