#include "agent/call_grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/field_error.h"
#include "core/json_tree.h"

namespace quern {
namespace {

using Symbol = Grammar::Symbol;
using Sequence = Grammar::Sequence;

class CallGrammar {
 public:
  CallGrammar(const CallChoice& choice, ToolStyle style) : choice_(choice), style_(style) {}

  // Thought, then an action and its input or the answer. The prompt may have begun the thought.
  Grammar make_react(bool in_thought) {
    const Symbol line =
        g_.repeat({g_.characters(Grammar::complement({{'\n', '\n'}, {'\r', '\r'}}))}, 1, 400);
    std::vector<Sequence> ways;
    for (const CallableTool& tool : choice_.tools) {
      Sequence way = texts({"\nAction: ", tool.name, "\nAction Input: "});
      way.push_back(arguments(tool));
      ways.push_back(std::move(way));
    }
    if (!choice_.must) {
      Sequence way = texts({"\nFinal Answer: "});
      way.push_back(without("Observation:", false));
      ways.push_back(std::move(way));
    }
    Sequence all = texts({in_thought ? " " : "Thought: "});
    all.push_back(line);
    all.push_back(choice(ways));
    const uint32_t root = g_.new_rule();
    g_.add(root, all);
    g_.finish(root);
    return std::move(g_);
  }

  Grammar make(bool reasoning, bool in_reasoning) {
    const Symbol calls = all_calls();
    Symbol reply = calls;
    if (!choice_.must) reply = rule({free_text(), optional(calls)});
    if (!choice_.must && style_ == ToolStyle::Llama)
      reply = choice({{calls}, {text_without_brace()}});
    // Thinking comes before whatever was asked for.
    Sequence all;
    if (in_reasoning) {
      all = {text_before("</think>"), blanks()};
    } else if (reasoning) {
      Sequence thought = g_.literal("<think>");
      thought.push_back(text_before("</think>"));
      thought.push_back(blanks());
      all = {choice({{}, thought})};
    }
    all.push_back(reply);
    const uint32_t root = g_.new_rule();
    g_.add(root, all);
    g_.finish(root);
    return std::move(g_);
  }

 private:
  Symbol rule(const Sequence& sequence) { return choice({sequence}); }
  Symbol choice(const std::vector<Sequence>& list) {
    const uint32_t id = g_.new_rule();
    for (const Sequence& sequence : list) g_.add(id, sequence);
    return Grammar::of_rule(id);
  }
  Symbol optional(Symbol symbol) { return choice({{}, {symbol}}); }
  Symbol blanks() {
    ByteSet set;
    for (const char c : {' ', '\n'}) set.set(static_cast<uint8_t>(c));
    return g_.repeat({g_.bytes(set)}, 0, 4);
  }
  Sequence texts(std::initializer_list<std::string_view> parts) {
    Sequence out;
    for (const std::string_view part : parts) {
      const Sequence more = g_.literal(part);
      out.insert(out.end(), more.begin(), more.end());
    }
    return out;
  }

  // Any UTF-8 in which `mark` does not stand, by the prefix function of Knuth, Morris and Pratt;
  // `with_mark`: and then the mark.
  Symbol without(std::string_view mark, bool with_mark) {
    std::vector<size_t> border(mark.size() + 1, 0);
    for (size_t i = 1; i < mark.size(); ++i) {
      size_t k = border[i];
      while (k > 0 && mark[i] != mark[k]) k = border[k];
      border[i + 1] = mark[i] == mark[k] ? k + 1 : 0;
    }
    const auto next = [&](size_t at, char c) {
      while (at > 0 && mark[at] != c) at = border[at];
      return mark[at] == c ? at + 1 : 0;
    };
    std::vector<uint32_t> states;
    for (size_t i = 0; i < mark.size(); ++i) states.push_back(g_.new_rule());
    for (size_t i = 0; i < mark.size(); ++i) {
      if (!with_mark) g_.add(states[i], {});
      CodePoints special;
      for (const char c : mark) {
        const auto point = static_cast<uint32_t>(static_cast<uint8_t>(c));
        if (std::ranges::find(special, std::pair(point, point)) != special.end()) continue;
        special.emplace_back(point, point);
        const size_t to = next(i, c);
        Sequence way = {g_.characters({{point, point}})};
        if (to < mark.size()) {
          way.push_back(Grammar::of_rule(states[to]));
        } else if (!with_mark) {
          continue;
        }
        g_.add(states[i], way);
      }
      g_.add(states[i], {g_.characters(Grammar::complement(special)), Grammar::of_rule(states[0])});
    }
    return Grammar::of_rule(states[0]);
  }
  Symbol text_before(std::string_view mark) { return without(mark, true); }
  Symbol free_text() {
    if (style_ == ToolStyle::Mistral) return without("[TOOL_CALLS]", false);
    if (style_ == ToolStyle::Hermes) return without("<tool_call>", false);
    return choice({{}});
  }
  Symbol text_without_brace() {
    const Symbol first = g_.characters(Grammar::complement({{'{', '{'}, {'<', '<'}, {' ', ' '}}));
    const Symbol any = g_.repeat({g_.characters({{0, 0x10FFFF}})}, 0, -1);
    return choice({{}, {first, any}});
  }

  Symbol arguments(const CallableTool& tool) {
    const bool kept = tool.strict || choice_.must;
    if (!kept || tool.schema.is_null()) return add_json_object(g_);
    // A schema without a type is one of arguments all the same.
    nlohmann::ordered_json schema = to_ordered_tree(tool.schema);
    if (!schema.contains("type")) schema["type"] = "object";
    try {
      return add_schema(g_, schema);
    } catch (const Error& problem) {
      throw FieldError(choice_.source, tool.where,
                       fmt::format("cannot be kept to: {}", problem.what()));
    }
  }

  // One call, without the marks around it.
  Symbol call() {
    std::vector<Sequence> list;
    for (const CallableTool& tool : choice_.tools) {
      const char* key = style_ == ToolStyle::Llama ? "parameters" : "arguments";
      Sequence one = texts({"{\"name\": \"", tool.name, "\", \"", key, "\": "});
      one.push_back(arguments(tool));
      const Sequence end = texts({"}"});
      one.insert(one.end(), end.begin(), end.end());
      list.push_back(std::move(one));
    }
    return choice(list);
  }
  Symbol all_calls() {
    const Symbol one = call();
    const auto around = [&](std::string_view before, std::string_view after) {
      Sequence out = texts({before});
      out.push_back(one);
      const Sequence end = texts({after});
      out.insert(out.end(), end.begin(), end.end());
      return out;
    };
    if (style_ == ToolStyle::Hermes) {
      const Sequence whole = around("<tool_call>\n", "\n</tool_call>");
      if (!choice_.parallel) return choice({whole});
      return rule({rule(whole), g_.repeat(around("\n<tool_call>\n", "\n</tool_call>"), 0, 31)});
    }
    if (style_ == ToolStyle::Mistral) {
      Sequence out = texts({
          "[TOOL_CALLS][",
      });
      out.push_back(one);
      if (choice_.parallel) out.push_back(g_.repeat(around(", ", ""), 0, 31));
      const Sequence end = texts({"]"});
      out.insert(out.end(), end.begin(), end.end());
      return choice({out});
    }
    if (!choice_.parallel) return one;
    return rule({one, g_.repeat(around("; ", ""), 0, 31)});
  }

  const CallChoice& choice_;
  ToolStyle style_;
  Grammar g_;
};

}  // namespace

ToolStyle call_style(const Tokenizer& tokenizer) {
  const auto has = [&](std::string_view name) { return tokenizer.special(name).has_value(); };
  if (has("[TOOL_CALLS]")) return ToolStyle::Mistral;
  if (!has("<tool_call>") && has("<|python_tag|>")) return ToolStyle::Llama;
  return ToolStyle::Hermes;
}

Grammar call_grammar(const CallChoice& choice, ToolStyle style, bool reasoning, bool in_reasoning) {
  if (style == ToolStyle::React) return CallGrammar(choice, style).make_react(in_reasoning);
  return CallGrammar(choice, style).make(reasoning, in_reasoning);
}

}  // namespace quern
