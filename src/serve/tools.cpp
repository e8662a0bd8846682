#include "serve/tools.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/field_error.h"

namespace quern::serve {
namespace {

using Choice = ToolUse::Choice;

constexpr size_t kMaxTools = 128;

[[noreturn]] void fail(const std::string& field, const std::string& problem,
                       std::string hint = {}) {
  throw FieldError("request", field, problem, std::move(hint));
}

// The function of an entry of `tools`, whichever API it came by.
struct Entry {
  const OrderedJson& json;
  std::string where;

  const OrderedJson* find(std::string_view name) const {
    const OrderedJson* value = json.find(name);
    return value == nullptr || value->is_null() ? nullptr : value;
  }
  std::string text(std::string_view name) const {
    const OrderedJson* value = find(name);
    if (value == nullptr) fail(where, fmt::format("lacks the member '{}'", name));
    if (!value->is_string()) fail(fmt::format("{}.{}", where, name), "is no string");
    return value->text;
  }
  void only(std::initializer_list<std::string_view> known) const {
    for (const auto& [name, value] : json.members) {
      if (value.is_null() || std::find(known.begin(), known.end(), name) != known.end()) continue;
      fail(fmt::format("{}.{}", where, printable(name, 60)), "is not known here");
    }
  }
};

void check_name(const std::string& name, const std::string& where) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.' || c == '/' || c == ':';
  };
  if (name.empty() || name.size() > 128 || !std::ranges::all_of(name, good)) {
    fail(where, fmt::format("is '{}'", printable(name, 60)),
         "a function's name has 1 to 128 letters, digits, _, -, ., / or :");
  }
}

Tool read_tool(const Entry& outer, Where where, OrderedJson& offered) {
  if (!outer.json.is_object()) fail(outer.where, "is no object");
  const char* schema_name = where == Messages ? "input_schema" : "parameters";
  const OrderedJson* inner = nullptr;
  if (where == Messages) {
    outer.only({"name", "description", "input_schema", "type", "cache_control", "strict"});
    const OrderedJson* type = outer.find("type");
    if (type != nullptr && (!type->is_string() || type->text != "custom")) {
      fail(outer.where + ".type", "is not custom, the only kind that is known here");
    }
  } else {
    const std::string type = outer.text("type");
    if (type != "function") {
      fail(outer.where + ".type", fmt::format("is '{}'", printable(type, 40)),
           "tools of type function only");
    }
    if (where == Chat) {
      outer.only({"type", "function"});
      inner = outer.find("function");
      if (inner == nullptr || !inner->is_object()) fail(outer.where, "lacks the object 'function'");
    } else {
      outer.only({"type", "name", "description", "parameters", "strict"});
    }
  }
  const Entry function = inner == nullptr ? outer : Entry{*inner, outer.where + ".function"};
  if (inner != nullptr) function.only({"name", "description", "parameters", "strict"});
  Tool tool;
  tool.name = function.text("name");
  check_name(tool.name, function.where + ".name");
  tool.where = fmt::format("{}.{}", function.where, schema_name);
  OrderedJson described;
  described.kind = OrderedJson::Kind::Object;
  described.set("name", OrderedJson::of_string(tool.name));
  if (function.find("description") != nullptr) {
    described.set("description", OrderedJson::of_string(function.text("description")));
  }
  if (const OrderedJson* schema = function.find(schema_name)) {
    if (!schema->is_object()) fail(tool.where, "is no object");
    tool.schema = *schema;
    described.set("parameters", *schema);
  }
  if (const OrderedJson* strict = function.find("strict")) {
    if (strict->kind != OrderedJson::Kind::Bool) {
      fail(function.where + ".strict", "is neither true nor false");
    }
    tool.strict = strict->boolean;
  }
  offered.kind = OrderedJson::Kind::Object;
  offered.set("type", OrderedJson::of_string("function"));
  offered.set("function", std::move(described));
  return tool;
}

// The name of the function that tool_choice asks for, if it asks for one.
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

ToolUse tools_of(const Body& body, const Parameters& given) {
  ToolUse use;
  const OrderedJson* list = body.find("tools");
  if (list != nullptr) {
    if (!list->is_array()) fail("tools", "is no list");
    if (list->items.size() > kMaxTools) {
      fail("tools",
           fmt::format("has {} tools, at most {} are taken", list->items.size(), kMaxTools));
    }
    for (size_t i = 0; i < list->items.size(); ++i) {
      OrderedJson offered;
      Tool tool = read_tool({list->items[i], fmt::format("tools[{}]", i)}, given.where(), offered);
      if (std::ranges::find(use.tools, tool.name, &Tool::name) != use.tools.end()) {
        fail(fmt::format("tools[{}]", i),
             fmt::format("has the name '{}' of another one", tool.name));
      }
      use.tools.push_back(std::move(tool));
      use.offered.kind = OrderedJson::Kind::Array;
      use.offered.items.push_back(std::move(offered));
    }
  }
  if (given.where() != Messages) use.parallel = given.boolean("parallel_tool_calls", true);
  if (const auto choice = given.other("tool_choice")) read_choice(*choice, given.where(), use);
  if (use.choice == Choice::None) use.offered = {};
  return use;
}

std::string call_problem(const ToolUse& use, const std::string& name,
                         const std::string& arguments) {
  const auto tool = std::ranges::find(use.tools, name, &Tool::name);
  if (tool == use.tools.end()) return "there is no such function";
  const auto value = nlohmann::ordered_json::parse(arguments, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) return "the arguments are no JSON object";
  try {
    if (tool->schema.is_null() || fits_schema(to_ordered_tree(tool->schema), value)) return {};
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
