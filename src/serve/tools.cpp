#include "serve/tools.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/field_error.h"

namespace quern::serve {
namespace {

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

Grammar tool_grammar(const ToolUse& use, ToolStyle style, bool reasoning, bool in_reasoning) {
  const bool must = use.choice == Choice::Required || use.choice == Choice::Named;
  return call_grammar({use.tools, must, use.parallel, "request"}, style, reasoning, in_reasoning);
}

}  // namespace quern::serve
