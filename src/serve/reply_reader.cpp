#include "serve/reply_reader.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/json.h"

namespace quern::serve {
namespace {

using Kind = ReplyEvent::Kind;

constexpr std::string_view kThink = "<think>", kThought = "</think>";
constexpr std::string_view kCall = "<tool_call>", kCalled = "</tool_call>";
constexpr std::string_view kCalls = "[TOOL_CALLS]", kArgs = "[ARGS]", kPython = "<|python_tag|>";
constexpr std::string_view kBlank = " \t\r\n";

// Where `mark` begins in `text`, or where an unfinished one may begin at the text's end; else the
// text's size.
size_t find_mark(std::string_view text, std::string_view mark) {
  const size_t whole = text.find(mark);
  if (whole != text.npos) return whole;
  for (size_t length = std::min(mark.size() - 1, text.size()); length > 0; --length) {
    if (text.ends_with(mark.substr(0, length))) return text.size() - length;
  }
  return text.size();
}

size_t skip_blank(std::string_view text, size_t at) {
  return std::min(text.find_first_not_of(kBlank, at), text.size());
}

// Whether `text` begins with `mark`, or may once there is more of it.
bool may_be(std::string_view text, std::string_view mark) {
  return text.substr(0, mark.size()) == mark.substr(0, text.size());
}

}  // namespace

ReplyReader::ReplyReader(const ReplyRules& rules) : rules_(rules) {
  if (rules.in_reasoning) {
    stage_ = Stage::Reasoning;
  } else if (!rules.reasoning) {
    stage_ = rules.tools ? Stage::BeforeText : Stage::Text;
  }
}

void ReplyReader::emit(Kind kind, std::string text) {
  if (text.empty() && kind != Kind::CallBegin) return;
  const bool joins = !events_.empty() && events_.back().kind == kind && kind != Kind::CallBegin;
  if (joins) {
    events_.back().text += text;
  } else {
    events_.push_back({kind, std::move(text)});
  }
}

std::vector<ReplyEvent> ReplyReader::put(std::string_view text) {
  events_.clear();
  held_ += text;
  step(false);
  return std::move(events_);
}

std::vector<ReplyEvent> ReplyReader::finish() {
  events_.clear();
  step(true);
  return std::move(events_);
}

// Reads a whole ReAct reply: only at its end is it certain what is thought, action or answer.
void ReplyReader::read_react() {
  const ParsedReply reply = parse_react(held_);
  if (reply.calls.empty() && !reply.final) {
    emit(Kind::Text, held_);
  } else {
    emit(Kind::Reasoning, reply.thought);
    if (reply.final) emit(Kind::Text, *reply.final);
    for (const auto& call : reply.calls) {
      emit(Kind::CallBegin, call.name);
      emit(Kind::CallArguments, python_dumps(call.arguments));
    }
  }
  held_.clear();
}

void ReplyReader::step(bool at_end) {
  if (rules_.tools == ToolStyle::React) {
    if (at_end) read_react();
    return;
  }
  bool moved = true;
  while (moved) {
    switch (stage_) {
      case Stage::Begin:
        moved = begin(at_end);
        break;
      case Stage::Reasoning:
        moved = reason(at_end);
        break;
      case Stage::BeforeText: {
        // Blanks behind the reasoning or before a call belong to neither.
        const size_t at = skip_blank(held_, 0);
        moved = at < held_.size();
        if (moved) {
          held_.erase(0, at);
          stage_ = Stage::Text;
        }
        break;
      }
      case Stage::Text:
        moved = tell_text(at_end);
        break;
      case Stage::Call:
        moved = call(at_end);
        break;
      case Stage::AfterCall:
        moved = after_call(at_end);
        break;
    }
  }
}

bool ReplyReader::begin(bool at_end) {
  const size_t at = skip_blank(held_, 0);
  const std::string_view rest = std::string_view(held_).substr(at);
  if (rest.starts_with(kThink)) {
    held_.erase(0, at + kThink.size());
    stage_ = Stage::Reasoning;
    return true;
  }
  if (!at_end && may_be(rest, kThink)) return false;
  stage_ = rules_.tools ? Stage::BeforeText : Stage::Text;
  return true;
}

bool ReplyReader::reason(bool at_end) {
  if (!text_told_) {
    const size_t at = skip_blank(held_, 0);
    held_.erase(0, at);
    if (held_.empty()) return false;
  }
  const size_t mark = find_mark(held_, kThought);
  const bool whole = std::string_view(held_).substr(mark).starts_with(kThought);
  size_t end = whole || !at_end ? mark : held_.size();
  // Blanks before the mark are not part of the thought.
  const size_t last = std::string_view(held_).substr(0, end).find_last_not_of(kBlank);
  const size_t shown = last == held_.npos ? 0 : last + 1;
  if (shown > 0) {
    emit(Kind::Reasoning, held_.substr(0, shown));
    text_told_ = true;
  }
  if (!whole) {
    held_.erase(0, at_end ? held_.size() : shown);
    return false;
  }
  held_.erase(0, mark + kThought.size());
  text_told_ = false;
  stage_ = Stage::BeforeText;
  return true;
}

bool ReplyReader::tell_text(bool at_end) {
  const auto tell = [&](size_t end) {
    if (end > 0) text_told_ = true;
    emit(Kind::Text, held_.substr(0, end));
    held_.erase(0, end);
  };
  if (!rules_.tools) {
    tell(held_.size());
    return false;
  }
  if (*rules_.tools == ToolStyle::Llama) {
    // A call is the whole reply.
    if (!text_told_) {
      const bool tagged = held_.starts_with(kPython);
      if (!at_end && !tagged && may_be(held_, kPython) && !held_.empty()) return false;
      if (tagged) held_.erase(0, kPython.size());
      const size_t at = skip_blank(held_, 0);
      if (held_.substr(at).starts_with('{')) {
        held_.erase(0, at);
        stage_ = Stage::Call;
        return true;
      }
    }
    tell(held_.size());
    return false;
  }
  const std::string_view mark = *rules_.tools == ToolStyle::Mistral ? kCalls : kCall;
  const size_t at = find_mark(held_, mark);
  const bool whole = std::string_view(held_).substr(at).starts_with(mark);
  // Blanks may stand before a call that is still to come.
  const size_t end = whole || !at_end ? at : held_.size();
  const size_t last = std::string_view(held_).substr(0, end).find_last_not_of(kBlank);
  tell(at_end && !whole ? end : last == held_.npos ? 0 : last + 1);
  if (!whole) return false;
  held_.erase(0, held_.find(mark) + mark.size());
  stage_ = Stage::Call;
  return true;
}

// Reads {"name": "NAME", "arguments": or NAME[ARGS], up to where the arguments begin. False while
// more is needed, and for other forms: those are broken_, and read as a whole at their end.
bool ReplyReader::read_call_head(bool at_end) {
  std::string_view text = whole_;
  size_t at = skip_blank(text, 0);
  const auto need_more = [&] {
    if (at_end) broken_ = true;
    return false;
  };
  const auto broken = [&] {
    broken_ = true;
    return false;
  };
  std::string name;
  if (*rules_.tools == ToolStyle::Mistral && at < text.size() && text[at] != '{') {
    const size_t args = text.find(kArgs, at), brace = text.find('{', at);
    const size_t end = std::min(args, brace);
    if (end == text.npos) return need_more();
    name = std::string(text.substr(at, end - at));
    while (!name.empty() && kBlank.find(name.back()) != kBlank.npos) name.pop_back();
    at = skip_blank(text, args == end ? end + kArgs.size() : end);
  } else {
    const auto take = [&](std::string_view wanted) {
      at = skip_blank(text, at);
      const std::string_view rest = text.substr(at);
      if (rest.size() < wanted.size() && may_be(rest, wanted)) return need_more();
      if (!rest.starts_with(wanted)) return broken();
      at += wanted.size();
      return true;
    };
    if (!take("{") || !take("\"name\"") || !take(":") || !take("\"")) return false;
    const size_t end = text.find('"', at);
    if (end == text.npos) return need_more();
    name = std::string(text.substr(at, end - at));
    if (name.find('\\') != name.npos) return broken();
    at = end + 1;
    if (!take(",")) return false;
    at = skip_blank(text, at);
    const std::string_view rest = text.substr(at);
    const std::string_view key =
        may_be(rest, "\"parameters\"") ? "\"parameters\"" : "\"arguments\"";
    if (!take(key) || !take(":")) return false;
    at = skip_blank(text, at);
  }
  if (at >= text.size()) return need_more();
  if (text[at] != '{') return broken();
  emit(Kind::CallBegin, name);
  told_ = at;
  head_read_ = true;
  return true;
}

bool ReplyReader::call(bool at_end) {
  whole_ += held_;
  held_.clear();
  if (*rules_.tools == ToolStyle::Mistral && !listed_ && !head_read_) {
    const size_t at = skip_blank(whole_, 0);
    if (at < whole_.size() && whole_[at] == '[') {
      listed_ = true;
      whole_.erase(0, at + 1);
    }
  }
  if (!head_read_ && !broken_) read_call_head(at_end);
  const auto end_call = [&](size_t end) {
    held_ = whole_.substr(end);
    whole_.clear();
    head_read_ = broken_ = in_string_ = escaped_ = false;
    depth_ = 0;
    stage_ = Stage::AfterCall;
    return true;
  };
  if (head_read_) {
    for (size_t at = told_; at < whole_.size(); ++at) {
      const char c = whole_[at];
      if (in_string_) {
        if (escaped_) {
          escaped_ = false;
        } else if (c == '\\') {
          escaped_ = true;
        } else if (c == '"') {
          in_string_ = false;
        }
        continue;
      }
      if (c == '"') in_string_ = true;
      if (c == '{' || c == '[') ++depth_;
      if ((c == '}' || c == ']') && --depth_ == 0) {
        emit(Kind::CallArguments, whole_.substr(told_, at + 1 - told_));
        return end_call(at + 1);
      }
    }
    emit(Kind::CallArguments, whole_.substr(told_));
    told_ = whole_.size();
    if (at_end) end_call(whole_.size());
    return false;
  }
  // Not written in the usual way: read with repairs, once it is whole.
  const bool hermes = *rules_.tools == ToolStyle::Hermes;
  const size_t end = hermes ? whole_.find(kCalled) : whole_.npos;
  if (!broken_ || (end == whole_.npos && !at_end)) return false;
  const std::string own = whole_.substr(0, end);
  const std::string reply = hermes ? std::string(kCall) + own + std::string(kCalled)
                            : *rules_.tools == ToolStyle::Mistral
                                ? std::string(kCalls) + (listed_ ? "[" : "") + own
                                : own;
  const ParsedReply parsed = parse_reply(*rules_.tools, reply);
  if (parsed.calls.empty()) {
    emit(Kind::Text, reply);
    text_told_ = true;
  }
  for (const auto& one : parsed.calls) {
    emit(Kind::CallBegin, one.name);
    emit(Kind::CallArguments, python_dumps(one.arguments));
  }
  return end_call(std::min(end, whole_.size()));
}

bool ReplyReader::after_call(bool at_end) {
  const size_t at = skip_blank(held_, 0);
  const std::string_view rest = std::string_view(held_).substr(at);
  switch (*rules_.tools) {
    case ToolStyle::Hermes: {
      // The object's own brace, and the mark.
      const size_t mark = find_mark(held_, kCalled);
      if (!std::string_view(held_).substr(mark).starts_with(kCalled)) return false;
      held_.erase(0, mark + kCalled.size());
      stage_ = Stage::BeforeText;
      return true;
    }
    case ToolStyle::Mistral: {
      const size_t comma = rest.find(','), close = rest.find(']'), mark = find_mark(held_, kCalls);
      if (listed_ && close < comma) {
        held_.erase(0, at + close + 1);
        listed_ = false;
        stage_ = Stage::BeforeText;
        return true;
      }
      if (listed_ && comma != rest.npos) {
        held_.erase(0, at + comma + 1);
        stage_ = Stage::Call;
        return true;
      }
      if (!listed_ && std::string_view(held_).substr(mark).starts_with(kCalls)) {
        stage_ = Stage::Text;
        return true;
      }
      if (!listed_ && at_end) held_.clear();
      return false;
    }
    default: {
      // {...}; {...}
      const size_t brace = rest.find('{');
      if (brace == rest.npos) return false;
      held_.erase(0, at + brace);
      stage_ = Stage::Call;
      return true;
    }
  }
}

}  // namespace quern::serve
