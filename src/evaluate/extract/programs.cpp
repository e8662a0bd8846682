#include "evaluate/extract/programs.h"

#include <optional>
#include <vector>

#include "core/python_text.h"
#include "evaluate/extract/regex.h"

namespace quern {
namespace {

constexpr std::string_view kFence = "```";

// The offset after the first `def`, white space and `name` from `from` on.
std::optional<size_t> find_def(std::string_view text, std::string_view name, size_t from) {
  for (size_t at = from; (at = text.find("def", at)) != text.npos; at += 3) {
    const std::string_view rest = text.substr(at + 3);
    const std::string_view word = python::lstrip(rest);
    if (word.size() < rest.size() && word.starts_with(name)) {
      return text.size() - word.size() + name.size();
    }
  }
  return {};
}

// The offset after the first colon directly before a line break.
std::optional<size_t> find_head_end(std::string_view text, size_t from) {
  const size_t colon = text.find(":\n", from);
  if (colon == text.npos) return {};
  return colon + 2;
}

// The body up to the first line break that no indented line follows, blank lines aside.
std::string indented_stretch(std::string_view text, size_t begin) {
  for (size_t at = begin; (at = text.find('\n', at)) != text.npos; ++at) {
    const size_t next = text.find_first_not_of('\n', at + 1);
    const std::string_view line = next == text.npos ? std::string_view() : text.substr(next);
    if (!line.starts_with("  ") && !line.starts_with("\t")) {
      return std::string(text.substr(begin, at - begin));
    }
    at = next;
  }
  return std::string(text.substr(begin));
}

bool is_blank(std::string_view line) { return python::strip(line).empty(); }

std::string indent(std::string_view text) {
  std::vector<std::string_view> lines;
  python::split_lines(text, python::LineEnds::Keep, lines);
  std::string out;
  for (const std::string_view line : lines) {
    if (!is_blank(line)) out += "    ";
    out += line;
  }
  return out;
}

using Lines = std::vector<std::string_view>;

std::string join(const Lines& lines) {
  std::string out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    out += lines[i];
  }
  return out;
}

// `def NAME(` at the line's begin; with an empty name any function's, which is then returned.
std::optional<std::string_view> defines(std::string_view line, std::string_view name = {}) {
  if (!line.starts_with("def ")) return {};
  std::string_view rest = python::lstrip(line.substr(4));
  size_t length = 0;
  while (length < rest.size() && (std::isalnum(static_cast<unsigned char>(rest[length])) != 0 ||
                                  rest[length] == '_' || (rest[length] & 0x80) != 0)) {
    ++length;
  }
  const std::string_view found = rest.substr(0, length);
  if (found.empty() || !python::lstrip(rest.substr(length)).starts_with('(')) return {};
  if (!name.empty() && found != name) return {};
  return found;
}

bool any_defines(const Lines& lines, std::string_view name) {
  for (const std::string_view line : lines) {
    if (defines(line, name)) return true;
  }
  return false;
}

// The lines between lines that begin with a fence; an open block goes to the end.
std::vector<Lines> fenced_blocks(const Lines& lines) {
  std::vector<Lines> blocks;
  bool inside = false;
  for (const std::string_view line : lines) {
    const size_t first = line.find_first_not_of(' ');
    if (first != line.npos && line.substr(first).starts_with(kFence)) {
      inside = !inside;
      if (inside) blocks.emplace_back();
    } else if (inside) {
      blocks.back().push_back(line);
    }
  }
  return blocks;
}

bool begins_with_any(std::string_view line, std::initializer_list<std::string_view> words) {
  for (const std::string_view word : words) {
    if (line.starts_with(word)) return true;
  }
  return false;
}

bool begins_code(std::string_view line) {
  return begins_with_any(line, {"def ", "class ", "import ", "from ", "@", "async def "});
}

// Code that stands in prose without a fence: from a line that can only be code up to one that
// can't be.
std::optional<Lines> unfenced(const Lines& lines, std::string_view name) {
  for (size_t begin = 0; begin < lines.size();) {
    if (!begins_code(lines[begin])) {
      ++begin;
      continue;
    }
    size_t end = begin + 1;
    for (; end < lines.size(); ++end) {
      const std::string_view line = lines[end];
      const bool indented = line.starts_with(' ') || line.starts_with('\t');
      if (!is_blank(line) && !indented && !begins_code(line) &&
          !begins_with_any(line, {"#", ")", "]", "}"})) {
        break;
      }
    }
    Lines code(lines.begin() + static_cast<std::ptrdiff_t>(begin),
               lines.begin() + static_cast<std::ptrdiff_t>(end));
    if (any_defines(code, name)) return code;
    begin = end;
  }
  return {};
}

}  // namespace

std::string base_completion(std::string_view text) {
  for (const char* mark : {"<|endoftext|>", "\n\n\n", "\n\n", "def "}) {
    text = python::before(text, mark);
  }
  return std::string(text);
}

std::string whole_body(std::string_view text) {
  text = python::before(text, "<|endoftext|>");
  for (size_t at = 0; (at = text.find('\n', at)) != text.npos; ++at) {
    if (at + 1 == text.size()) break;
    const char next = text[at + 1];
    if (next != ' ' && next != '\t' && next != '\r' && next != '\n') {
      return std::string(text.substr(0, at));
    }
  }
  return std::string(text);
}

bool both_complete(std::string_view text) {
  const bool parity = text.find("\n\n") != text.npos || text.find("def ") != text.npos;
  return parity && whole_body(text).size() < text.size();
}

std::string chat_completion(const std::string& reply, const std::string& name) {
  // In a fence: each gap as short as possible, so the first of everything that is followed by the
  // rest. What follows can only become less on the way, so the first fence and the first head do.
  const std::string_view text = reply;
  if (const size_t fence = text.find(kFence); fence != text.npos) {
    if (const auto def = find_def(text, name, fence + kFence.size())) {
      if (const auto body = find_head_end(text, *def)) {
        const size_t end = text.find("\n```", *body);
        if (end != text.npos) return std::string(text.substr(*body, end - *body));
      }
    }
  }
  if (const auto def = find_def(text, name, 0)) {
    if (const auto body = find_head_end(text, *def)) return indented_stretch(text, *body);
  }
  if (const size_t def = text.find("def"); def != text.npos) {
    if (const auto body = find_head_end(text, def)) return indented_stretch(text, *body);
  }
  return indent(text);
}

std::string chat_program(const std::string& reply, const std::string& prompt,
                         const std::string& name) {
  const std::string text = python::replace(reply, "\r\n", "\n");
  const Lines lines = python::split_at(text, "\n");
  const std::vector<Lines> blocks = fenced_blocks(lines);

  // The prompt before the function: imports and helpers.
  std::string pre;
  const Lines prompt_lines = python::split_at(prompt, "\n");
  for (size_t i = prompt_lines.size(); i-- > 0;) {
    if (!defines(prompt_lines[i], name)) continue;
    pre = prompt.substr(0, static_cast<size_t>(prompt_lines[i].data() - prompt.data()));
    break;
  }

  for (const Lines& block : blocks) {
    if (any_defines(block, name)) return pre + join(block);
  }
  if (blocks.empty()) {
    if (const auto code = unfenced(lines, name)) return pre + join(*code);
  }
  for (const Lines& block : blocks) {
    std::string_view other;
    for (const std::string_view line : block) {
      if (const auto found = defines(line)) other = *found;
    }
    if (!other.empty()) return pre + join(block) + "\n" + name + " = " + std::string(other);
  }
  const Lines body = blocks.empty() ? lines : blocks.front();
  for (const std::string_view line : body) {
    if (is_blank(line)) continue;
    const bool indented = line.starts_with(' ') || line.starts_with('\t');
    return prompt + (indented ? join(body) : indent(join(body)));
  }
  return prompt + join(body);
}

}  // namespace quern
