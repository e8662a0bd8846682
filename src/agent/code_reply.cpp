#include "agent/code_reply.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/ascii.h"
#include "core/python_text.h"

namespace quern {
namespace {

const OrderedJson& function_of(const OrderedJson& tool) {
  const OrderedJson* function = tool.find("function");
  return function == nullptr ? tool : *function;
}

std::string text_of(const OrderedJson& object, std::string_view name) {
  const OrderedJson* value = object.find(name);
  return value != nullptr && value->is_string() ? value->text : std::string();
}

// Parameters in their order, required ones first: Python wants it so.
std::vector<std::pair<std::string, bool>> parameters_of(const OrderedJson& schema) {
  std::vector<std::pair<std::string, bool>> out;
  const OrderedJson* properties = schema.find("properties");
  const OrderedJson* required = schema.find("required");
  if (properties == nullptr || !properties->is_object()) return out;
  for (const auto& [name, value] : properties->members) {
    const bool needed =
        required != nullptr && std::ranges::any_of(required->items, [&](const OrderedJson& one) {
          return one.is_string() && one.text == name;
        });
    out.emplace_back(name, needed);
  }
  std::ranges::stable_sort(out, [](const auto& a, const auto& b) { return a.second > b.second; });
  return out;
}

}  // namespace

std::string code_name(std::string_view name) {
  static constexpr std::string_view kKeywords[] = {
      "and",  "as",     "assert", "async",  "await",  "break",   "class",    "continue", "def",
      "del",  "elif",   "else",   "except", "False",  "finally", "for",      "from",     "global",
      "if",   "import", "in",     "is",     "lambda", "None",    "nonlocal", "not",      "or",
      "pass", "raise",  "return", "True",   "try",    "while",   "with",     "yield"};
  std::string out;
  for (const char c : name) {
    const bool good = is_ascii_letter(c) || (c >= '0' && c <= '9');
    out += good ? c : '_';
  }
  if (out.empty() || (out[0] >= '0' && out[0] <= '9')) out.insert(out.begin(), '_');
  if (std::ranges::find(kKeywords, out) != std::end(kKeywords)) out += '_';
  return out;
}

std::string code_signature(std::string_view tool, const OrderedJson& parameters) {
  std::string out = code_name(tool) + "(";
  for (const auto& [name, needed] : parameters_of(parameters)) {
    out += (out.back() == '(' ? "" : ", ") + code_name(name) + (needed ? "" : "=None");
  }
  return out + ")";
}

std::string code_call(std::string_view tool, const OrderedJson& arguments) {
  std::string out = code_name(tool) + "(";
  for (const auto& [name, value] : arguments.members) {
    const std::string text = value.kind == OrderedJson::Kind::Bool
                                 ? (python_dumps(value) == "true" ? "True" : "False")
                             : value.is_null() ? "None"
                                               : python_dumps(value);
    out += (out.back() == '(' ? "" : ", ") + code_name(name) + "=" + text;
  }
  return out + ")";
}

std::string code_functions(const OrderedJson& tools) {
  std::string out =
      "def _define(name, tool, parameters):\n"
      "    def function(*values, **named):\n"
      "        given = dict(zip(parameters.values(), values))\n"
      "        given.update((parameters.get(k, k), v) for k, v in named.items())\n"
      "        return _call(tool, {k: v for k, v in given.items() if v is not None})\n"
      "    function.__name__ = name\n"
      "    globals()[name] = function\n";
  for (const OrderedJson& tool : tools.items) {
    const OrderedJson& function = function_of(tool);
    const std::string name = text_of(function, "name");
    OrderedJson names;  // Python's to the tool's
    names.kind = OrderedJson::Kind::Object;
    if (const OrderedJson* schema = function.find("parameters")) {
      for (const auto& [parameter, needed] : parameters_of(*schema)) {
        names.set(code_name(parameter), OrderedJson::of_string(parameter));
      }
    }
    out +=
        fmt::format("_define({}, {}, {})\n", python_dumps(OrderedJson::of_string(code_name(name))),
                    python_dumps(OrderedJson::of_string(name)), python_dumps(names));
  }
  return out;
}

std::string code_instructions(const OrderedJson& tools) {
  std::string out =
      "You answer questions by writing short Python programs. These functions can be called and "
      "need no import:\n\n";
  for (const OrderedJson& tool : tools.items) {
    const OrderedJson& function = function_of(tool);
    const OrderedJson* schema = function.find("parameters");
    OrderedJson none;
    none.kind = OrderedJson::Kind::Object;
    out += fmt::format(
        "- {}: {}\n", code_signature(text_of(function, "name"), schema == nullptr ? none : *schema),
        text_of(function, "description"));
  }
  return out +
         "\nSay first which functions you use and for what. Then write \"Answer:\" and the program "
         "between ```py and ```. The value of its last line, and what it prints, is the answer.";
}

CodeReply parse_code_reply(std::string_view reply) {
  CodeReply out;
  const size_t fence = reply.find("```");
  std::string_view thought = reply.substr(0, fence);
  thought = thought.substr(0, thought.find("Answer:"));
  out.thought = python::strip(thought);
  if (fence == reply.npos) return out;
  std::string_view code = reply.substr(fence + 3);
  // The language behind the fence.
  const size_t line = code.find('\n');
  const std::string_view head = python::strip(code.substr(0, line));
  const bool language = std::ranges::all_of(head, [](char c) { return is_ascii_letter(c); });
  if (line != code.npos && language) code.remove_prefix(line + 1);
  code = code.substr(0, code.find("```"));
  while (!code.empty() && (code.back() == '\n' || code.back() == ' ' || code.back() == '\r')) {
    code.remove_suffix(1);
  }
  out.code = code;
  return out;
}

}  // namespace quern
