#include "serve/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace quern::serve {
namespace {

using nlohmann::ordered_json;

[[noreturn]] void fail(const std::string& problem) {
  throw_bad_input("request: response_format " + problem);
}

const ordered_json& member(const ordered_json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end()) fail(fmt::format("lacks the member '{}'", name));
  return *found;
}

const std::string& text_member(const ordered_json& object, const char* name) {
  const ordered_json& value = member(object, name);
  if (!value.is_string()) fail(fmt::format("has a {} that is no string", name));
  return value.get_ref<const std::string&>();
}

void only(const ordered_json& object, std::initializer_list<std::string_view> names) {
  for (const auto& [name, value] : object.items()) {
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      fail(fmt::format("has the member '{}', which is not known here", printable(name, 40)));
    }
  }
}

Grammar grammar_of(const ordered_json& format, const std::string& type) {
  if (type == "json_object") {
    only(format, {"type"});
    return grammar_of_json_object();
  }
  if (type == "json_schema") {
    only(format, {"type", "json_schema"});
    const ordered_json& inner = member(format, "json_schema");
    if (!inner.is_object()) fail("has a json_schema that is no object");
    only(inner, {"name", "description", "schema", "strict"});
    return grammar_from_schema(member(inner, "schema"));
  }
  if (type == "regex") {
    only(format, {"type", "regex"});
    return grammar_from_regex(text_member(format, "regex"));
  }
  if (type == "grammar") {
    only(format, {"type", "grammar"});
    return grammar_from_gbnf(text_member(format, "grammar"));
  }
  fail(fmt::format("has the type '{}', expected text, json_object, json_schema, regex or grammar",
                   printable(type, 40)));
}

}  // namespace

void apply_format(std::string_view body, LoadedModel& model, Plan& plan) {
  const ordered_json format = ordered_json::parse(body).at("response_format");
  if (plan.format == "text") {
    only(format, {"type"});
    return;
  }
  if (plan.base.stop.ids.empty() || plan.base.stop.ignore_ids) {
    fail(fmt::format("is {}, which needs a token to end with, and this request has none",
                     printable(plan.format, 40)));
  }
  for (const TokenId id : plan.base.stop.ids) {
    if (id >= model.model.config().output_vocab)
      fail("needs stop_token_ids that the model can say");
  }
  if (!plan.base.stop.strings.empty()) {
    fail(fmt::format("is {}, which the stop strings could cut", printable(plan.format, 40)));
  }
  plan.base.stop.sequences.clear();  // they would end it where the format does not
  try {
    plan.automaton = std::make_shared<Automaton>(grammar_of(format, plan.format), model.trie());
  } catch (const Error& problem) {
    // Too large to be kept to is the request's fault, not that of the machine.
    if (std::string_view(problem.what()).starts_with("request: ")) throw;
    throw_bad_input(std::string("request: response_format: ") + problem.what());
  }
}

}  // namespace quern::serve
