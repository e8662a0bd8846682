#include "serve/tools.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/field_error.h"

namespace quern::serve {
namespace {

using Symbol = Grammar::Symbol;
using Sequence = Grammar::Sequence;
using Choice = ToolUse::Choice;

constexpr size_t kMaxTools = 128;

void check_name(const std::string& name, const std::string& where) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.' || c == '/' || c == ':';
  };
  if (name.empty() || name.size() > 128 || !std::ranges::all_of(name, good)) {
    fail_at(where, fmt::format("is '{}'", printable(name, 60)),
            "a function's name has 1 to 128 letters, digits, _, -, ., / or :");
  }
}

// An entry of `tools`, which stands at `where`; `offered` becomes it in OpenAI's form.
Tool read_tool(const OrderedJson& entry, const std::string& where, Where api,
               OrderedJson& offered) {
  if (!entry.is_object()) fail_at(where, "is no object");
  // Chat has the function in an object of its own.
  const OrderedJson* function = &entry;
  std::string at = where;
  if (api == Messages) {
    only_members(entry, where,
                 {"name", "description", "input_schema", "type", "cache_control", "strict"});
    const OrderedJson* type = find_member(entry, "type");
    if (type != nullptr && (!type->is_string() || type->text != "custom")) {
      fail_at(where + ".type", "is not custom, the only kind that is known here");
    }
  } else {
    const std::string& type = text_member(entry, "type", where);
    if (type != "function") {
      fail_at(where + ".type", fmt::format("is '{}'", printable(type, 40)),
              "tools of type function only");
    }
    if (api == Chat) {
      only_members(entry, where, {"type", "function"});
      function = find_member(entry, "function");
      if (function == nullptr || !function->is_object()) {
        fail_at(where, "lacks the object 'function'");
      }
      at += ".function";
      only_members(*function, at, {"name", "description", "parameters", "strict"});
    } else {
      only_members(entry, where, {"type", "name", "description", "parameters", "strict"});
    }
  }
  const char* schema_name = api == Messages ? "input_schema" : "parameters";
  Tool tool;
  tool.name = text_member(*function, "name", at);
  check_name(tool.name, at + ".name");
  tool.where = fmt::format("{}.{}", at, schema_name);
  OrderedJson described;
  described.kind = OrderedJson::Kind::Object;
  described.set("name", OrderedJson::of_string(tool.name));
  if (find_member(*function, "description") != nullptr) {
    described.set("description", OrderedJson::of_string(text_member(*function, "description", at)));
  }
  if (const OrderedJson* schema = find_member(*function, schema_name)) {
    if (!schema->is_object()) fail_at(tool.where, "is no object");
    tool.schema = *schema;
    described.set("parameters", *schema);
  }
  if (const OrderedJson* strict = find_member(*function, "strict")) {
    if (!strict->is(OrderedJson::Kind::Bool)) {
      fail_at(at + ".strict", "is neither true nor false");
    }
    tool.strict = strict->boolean;
  }
  offered.kind = OrderedJson::Kind::Object;
  offered.set("type", OrderedJson::of_string("function"));
  offered.set("function", std::move(described));
  return tool;
}

// Sets use.choice as tool_choice says; where it names a function, use.tools becomes that one.
void read_choice(const Json& choice, Where where, ToolUse& use) {
  const auto word = [&](const std::string& text, const Json& at) {
    if (text == "none") {
      use.choice = Choice::None;
    } else if (text == "auto") {
      use.choice = Choice::Auto;
    } else if (text == (where == Messages ? "any" : "required")) {
      use.choice = Choice::Required;
    } else {
      at.fail(fmt::format("is '{}', expected none, auto, {} or a function", printable(text, 40),
                          where == Messages ? "any" : "required"));
    }
  };
  if (choice.is_string()) {
    if (where == Messages) choice.fail("is a string, expected an object with a type");
    word(choice.string(), choice);
  } else {
    const Json type = choice.at("type");
    const bool named = type.string() == (where == Messages ? "tool" : "function");
    if (where == Messages && !named) {
      constexpr std::string_view kKnown[] = {"type", "disable_parallel_tool_use"};
      only_members(choice, kKnown);
      word(type.string(), type);
    } else if (!named) {
      type.fail(fmt::format("is '{}', expected function", printable(type.string(), 40)));
    } else {
      if (where == Messages) {
        constexpr std::string_view kKnown[] = {"type", "name", "disable_parallel_tool_use"};
        only_members(choice, kKnown);
      } else if (where == Chat) {
        constexpr std::string_view kKnown[] = {"type", "function"}, kFunction[] = {"name"};
        only_members(choice, kKnown);
        only_members(choice.at("function"), kFunction);
      } else {
        constexpr std::string_view kKnown[] = {"type", "name"};
        only_members(choice, kKnown);
      }
      const Json name = where == Chat ? choice.at("function").at("name") : choice.at("name");
      const auto found = std::ranges::find(use.tools, name.string(), &Tool::name);
      if (found == use.tools.end()) {
        name.fail(fmt::format("is '{}', which tools has not", printable(name.string(), 60)));
      }
      use.choice = Choice::Named;
      use.tools = {Tool(*found)};
    }
    if (where == Messages) {
      use.parallel = !choice.boolean_or("disable_parallel_tool_use", false);
    }
  }
  if (use.tools.empty() && use.choice != Choice::None && use.choice != Choice::Auto) {
    choice.fail("asks for a call, but there are no tools");
  }
}

// ---- Grammars ----

class ToolGrammar {
 public:
  ToolGrammar(const ToolUse& use, ToolStyle style) : use_(use), style_(style) {}

  // Thought, then an action and its input or the answer. The prompt may have begun the thought.
  Grammar make_react(bool in_thought) {
    const bool must = use_.choice == Choice::Required || use_.choice == Choice::Named;
    const Symbol line =
        g_.repeat({g_.characters(Grammar::complement({{'\n', '\n'}, {'\r', '\r'}}))}, 1, 400);
    std::vector<Sequence> ways;
    for (const Tool& tool : use_.tools) {
      Sequence way = texts({"\nAction: ", tool.name, "\nAction Input: "});
      way.push_back(arguments(tool));
      ways.push_back(std::move(way));
    }
    if (!must) {
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
    const bool must = use_.choice == Choice::Required || use_.choice == Choice::Named;
    const Symbol calls = all_calls();
    Symbol reply = calls;
    if (!must) reply = rule({free_text(), optional(calls)});
    if (!must && style_ == ToolStyle::Llama) reply = choice({{calls}, {text_without_brace()}});
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

  Symbol arguments(const Tool& tool) {
    const bool kept =
        tool.strict || use_.choice == Choice::Required || use_.choice == Choice::Named;
    if (!kept || tool.schema.is_null()) return add_json_object(g_);
    // A schema without a type is one of arguments all the same.
    nlohmann::ordered_json schema = to_ordered_tree(tool.schema);
    if (!schema.contains("type")) schema["type"] = "object";
    try {
      return add_schema(g_, schema);
    } catch (const Error& problem) {
      fail_at(tool.where, fmt::format("cannot be kept to: {}", problem.what()));
    }
  }

  // One call, without the marks around it.
  Symbol call() {
    std::vector<Sequence> list;
    for (const Tool& tool : use_.tools) {
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
      if (!use_.parallel) return choice({whole});
      return rule({rule(whole), g_.repeat(around("\n<tool_call>\n", "\n</tool_call>"), 0, 31)});
    }
    if (style_ == ToolStyle::Mistral) {
      Sequence out = texts({"[TOOL_CALLS]["});
      out.push_back(one);
      if (use_.parallel) out.push_back(g_.repeat(around(", ", ""), 0, 31));
      const Sequence end = texts({"]"});
      out.insert(out.end(), end.begin(), end.end());
      return choice({out});
    }
    if (!use_.parallel) return one;
    return rule({one, g_.repeat(around("; ", ""), 0, 31)});
  }

  const ToolUse& use_;
  ToolStyle style_;
  Grammar g_;
};

}  // namespace

bool ToolUse::constrains() const {
  if (!any()) return false;
  if (choice == Choice::Required || choice == Choice::Named) return true;
  return std::ranges::any_of(tools, &Tool::strict);
}

ToolUse offered_tools(const Body& body, Where where) {
  ToolUse use;
  const OrderedJson* list = body.find("tools");
  if (list != nullptr) {
    if (!list->is_array()) fail_at("tools", "is no list");
    if (list->items.size() > kMaxTools) {
      fail_at("tools",
              fmt::format("has {} tools, at most {} are taken", list->items.size(), kMaxTools));
    }
    for (size_t i = 0; i < list->items.size(); ++i) {
      OrderedJson offered;
      Tool tool = read_tool(list->items[i], fmt::format("tools[{}]", i), where, offered);
      if (std::ranges::find(use.tools, tool.name, &Tool::name) != use.tools.end()) {
        fail_at(fmt::format("tools[{}]", i),
                fmt::format("has the name '{}' of another one", tool.name));
      }
      use.tools.push_back(std::move(tool));
      use.offered.kind = OrderedJson::Kind::Array;
      use.offered.items.push_back(std::move(offered));
    }
  }
  return use;
}

ToolUse tools_of(const Body& body, const Parameters& given) {
  ToolUse use = offered_tools(body, given.where());
  if (given.where() != Messages) use.parallel = given.boolean("parallel_tool_calls", true);
  if (const auto choice = given.other("tool_choice")) read_choice(*choice, given.where(), use);
  if (use.choice == Choice::None) use.offered = {};
  return use;
}

std::optional<nlohmann::ordered_json> read_arguments(const std::string& arguments) {
  try {
    const OrderedJson read = OrderedJson::parse(arguments, "arguments");
    if (read.is_object()) return to_ordered_tree(read);
  } catch (const Error&) {
    // A model writes what it likes.
  }
  return std::nullopt;
}

std::string call_problem(const ToolUse& use, const std::string& name,
                         const std::string& arguments) {
  const auto tool = std::ranges::find(use.tools, name, &Tool::name);
  if (tool == use.tools.end()) return "there is no such function";
  const std::optional<nlohmann::ordered_json> value = read_arguments(arguments);
  if (!value) return "the arguments are no JSON object";
  try {
    if (tool->schema.is_null() || fits_schema(to_ordered_tree(tool->schema), *value)) return {};
  } catch (const Error&) {
    return {};
  }
  return "the arguments do not fit the schema";
}

ToolStyle call_style(const Tokenizer& tokenizer) {
  const auto has = [&](std::string_view name) { return tokenizer.special(name).has_value(); };
  if (has("[TOOL_CALLS]")) return ToolStyle::Mistral;
  if (!has("<tool_call>") && has("<|python_tag|>")) return ToolStyle::Llama;
  return ToolStyle::Hermes;
}

Grammar tool_grammar(const ToolUse& use, ToolStyle style, bool reasoning, bool in_reasoning) {
  if (style == ToolStyle::React) return ToolGrammar(use, style).make_react(in_reasoning);
  return ToolGrammar(use, style).make(reasoning, in_reasoning);
}

}  // namespace quern::serve
