#include <algorithm>
#include <array>

#include "agent/json5.h"
#include "agent/reply.h"
#include "core/python_text.h"
#include "core/utf8.h"

namespace quern {
namespace {

enum class MarkKind { Thought, Action, ActionInput, Observation, FinalAnswer };

struct Mark {
  MarkKind kind;
  size_t begin, end;  // of its word; after its colon
};

constexpr std::pair<std::string_view, MarkKind> kMarks[] = {
    {"Action Input", MarkKind::ActionInput}, {"Action", MarkKind::Action},
    {"Thought", MarkKind::Thought},          {"Observation", MarkKind::Observation},
    {"Final Answer", MarkKind::FinalAnswer},
};

bool is_word(char c) noexcept {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

std::optional<Mark> mark_at(std::string_view text, size_t at) noexcept {
  if (at > 0 && is_word(text[at - 1])) return std::nullopt;
  for (const auto& [word, kind] : kMarks) {
    if (!text.substr(at).starts_with(word)) continue;
    size_t end = at + word.size();
    while (end < text.size() && (text[end] == ' ' || text[end] == '\t')) ++end;
    for (const std::string_view colon : {":", "："}) {
      if (text.substr(end).starts_with(colon)) return Mark{kind, at, end + colon.size()};
    }
  }
  return std::nullopt;
}

std::optional<Mark> next_mark(std::string_view text, size_t from) noexcept {
  for (size_t at = text.find_first_of("ATOF", from); at != std::string_view::npos;
       at = text.find_first_of("ATOF", at + 1)) {
    if (const auto mark = mark_at(text, at)) return mark;
  }
  return std::nullopt;
}

// A tool's name as models decorate it: its first line, without quotes and brackets around it.
std::string_view bare_name(std::string_view text) noexcept {
  text = trim_json5_space(text);
  text = trim_json5_space(text.substr(0, text.find('\n')));
  constexpr std::string_view kAround = "`\"'[]";
  const size_t begin = text.find_first_not_of(kAround);
  if (begin == std::string_view::npos) return {};
  return trim_json5_space(text.substr(begin, text.find_last_not_of(kAround) + 1 - begin));
}

// The latest place where an object that is not closed can end: before the first line that begins
// with a mark or a code fence.
size_t open_end(std::string_view text, size_t from) noexcept {
  for (size_t at = text.find('\n', from); at != std::string_view::npos;
       at = text.find('\n', at + 1)) {
    size_t line = at + 1;
    while (line < text.size() && text[line] == ' ') ++line;
    if (text.substr(line).starts_with("```") || mark_at(text, line)) return at;
  }
  return text.size();
}

// Skips white space and the opening of a code fence.
size_t skip_fence(std::string_view text, size_t at) noexcept {
  at = skip_json5_space(text, at);
  if (!text.substr(at).starts_with("```")) return at;
  at += 3;
  while (at < text.size() && is_word(text[at]) && text[at] != '_') ++at;
  return skip_json5_space(text, at);
}

// Reads the arguments after an `Action Input:` mark. On success `at` is after them.
std::optional<ReplyCall> read_arguments(std::string_view text, size_t& at) {
  const size_t begin = skip_fence(text, at);
  if (begin >= text.size() || text[begin] != '{') return std::nullopt;
  ReplyCall call;
  const auto take = [&](std::optional<Json5Value>&& read, size_t length, bool repaired) {
    call.arguments = std::move(read->value);
    call.raw = text.substr(begin, length);
    call.repaired = repaired;
    at = begin + length;
    return call;
  };
  if (auto read = read_json5(text.substr(begin), {.constants = false, .repairs = true})) {
    const size_t length = read->end;
    const bool repaired = read->repaired;
    return take(std::move(read), length, repaired);
  }
  const size_t end = open_end(text, begin);
  const std::string_view cut = trim_json5_space(text.substr(begin, end - begin));
  if (auto read = read_json5(cut, {.constants = false, .repairs = true, .close_at_end = true})) {
    return take(std::move(read), cut.size(), true);
  }
  return std::nullopt;
}

// The most calls of a reply that are repaired: to find where one ends may take reading the whole
// rest of the text.
constexpr int kMostRepaired = 100;

class ReactReader {
 public:
  explicit ReactReader(std::string_view text) : text_(text) {}

  ParsedReply read() {
    const auto first = next_mark(text_, 0);
    if (!first) {
      const std::string_view answer = trim_json5_space(text_);
      if (answer.empty()) {
        out_.error = "empty";
      } else {
        out_.final = answer;
      }
      return std::move(out_);
    }
    read_thought();
    for (auto mark = first; mark && !ended_;) mark = step(*mark);
    if (!ended_ && action_open_) fail("no_action_input");
    if (!out_.calls.empty() || !out_.error.empty()) {
      out_.final.reset();
    } else if (!out_.final) {
      out_.error = "no_action";
    }
    return std::move(out_);
  }

 private:
  void fail(std::string error) {
    out_.error = std::move(error);
    ended_ = true;
  }

  // The thought: the text before the first other mark, from the last Thought on.
  void read_thought() {
    size_t begin = 0, end = text_.size();
    for (auto mark = next_mark(text_, 0); mark; mark = next_mark(text_, mark->end)) {
      if (mark->kind != MarkKind::Thought) {
        end = mark->begin;
        break;
      }
      begin = mark->end;
    }
    out_.thought = trim_json5_space(text_.substr(begin, end - begin));
  }

  // Reads the text after `mark`; returns the mark to go on with.
  std::optional<Mark> step(const Mark& mark) {
    size_t at = mark.end;
    switch (mark.kind) {
      case MarkKind::Thought:
        break;
      case MarkKind::Action: {
        if (action_open_) return fail("no_action_input"), std::nullopt;
        const auto next = next_mark(text_, at);
        name_ = bare_name(text_.substr(at, next ? next->begin - at : std::string_view::npos));
        if (name_.empty()) return fail("no_action"), std::nullopt;
        action_open_ = true;
        return next;
      }
      case MarkKind::ActionInput: {
        if (!action_open_) return fail("no_action"), std::nullopt;
        auto call = read_arguments(text_, at);
        if (!call) return fail("bad_arguments"), std::nullopt;
        if (call->repaired && ++repaired_ > kMostRepaired) {
          return fail("bad_arguments"), std::nullopt;
        }
        call->name = name_;
        out_.calls.push_back(std::move(*call));
        action_open_ = false;
        break;
      }
      case MarkKind::Observation:  // generation would have stopped here
        if (action_open_) fail("no_action_input");
        ended_ = true;
        return std::nullopt;
      case MarkKind::FinalAnswer:
        if (action_open_) return fail("no_action_input"), std::nullopt;
        out_.final = trim_json5_space(text_.substr(at));
        ended_ = true;
        return std::nullopt;
    }
    return next_mark(text_, at);
  }

  std::string_view text_;
  ParsedReply out_;
  std::string name_;
  bool action_open_ = false, ended_ = false;
  int repaired_ = 0;
};

}  // namespace

ParsedReply parse_react(std::string_view reply) {
  for (const std::string_view end : {"<|im_start|>", "<|im_end|>", "<|endoftext|>"}) {
    reply = reply.substr(0, reply.find(end));
  }
  return ReactReader(reply).read();
}

ReactParity parse_react_as_release(std::string_view reply) {
  const std::u32string text = python::points(std::string(reply) + "\n");
  const auto length = static_cast<int64_t>(text.size());
  const auto find = [&](const char32_t* mark) {
    const size_t at = text.find(mark);
    return at == std::u32string::npos ? int64_t{-1} : static_cast<int64_t>(at);
  };
  const auto find_last = [&](const char32_t* mark) {
    const size_t at = text.rfind(mark);
    return at == std::u32string::npos ? int64_t{-1} : static_cast<int64_t>(at);
  };
  // text[from:to].strip() with Python's meaning of a negative end.
  const auto slice = [&](int64_t from, int64_t to) {
    if (to < 0) to = std::max<int64_t>(0, length + to);
    to = std::min(to, length);
    from = std::min(from, to);
    const auto part =
        std::u32string_view(text).substr(static_cast<size_t>(from), static_cast<size_t>(to - from));
    std::string out;
    for (const char32_t c : part) utf8::append(out, c);
    return std::string(python::strip(out));
  };
  const int64_t action = find(U"Action:"), input = find(U"Action Input:");
  const int64_t observation = find(U"Observation:"), final_answer = find(U"Final Answer:");
  const int64_t last_thought = find_last(U"Thought:");

  ReactParity out;
  out.positive = text.find(U"\nAction: ") != std::u32string::npos;
  out.thought = slice(0, action);
  out.action = slice(action + 7, input);
  if (const auto value = parse_json5(slice(input + 13, observation))) {
    out.action_input = python_dumps(*value, {.sort_keys = true});
  }
  out.observation = slice(observation + 12, last_thought);
  out.thought_last = slice(last_thought + 8, final_answer);
  out.final_answer = slice(final_answer + 13, length);
  return out;
}

}  // namespace quern
