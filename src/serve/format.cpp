#include "serve/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace quern::serve {
namespace {

using nlohmann::ordered_json;

// The format's object, and where in the request it stands.
struct Given {
  const char* where;
  const ordered_json& object;

  [[noreturn]] void fail(const std::string& problem) const {
    throw_bad_input(fmt::format("request: {} {}", where, problem));
  }
  const ordered_json& member(const ordered_json& of, const char* name) const {
    const auto found = of.find(name);
    if (found == of.end()) fail(fmt::format("lacks the member '{}'", name));
    return *found;
  }
  const std::string& text_member(const char* name) const {
    const ordered_json& value = member(object, name);
    if (!value.is_string()) fail(fmt::format("has a {} that is no string", name));
    return value.get_ref<const std::string&>();
  }
  void only(const ordered_json& of, std::initializer_list<std::string_view> names) const {
    for (const auto& [name, value] : of.items()) {
      if (std::find(names.begin(), names.end(), name) == names.end()) {
        fail(fmt::format("has the member '{}', which is not known here", printable(name, 40)));
      }
    }
  }
};

// Chat has a schema and its name in an object of their own, responses beside the type.
const ordered_json& schema_of(const Given& format, Where where) {
  if (where == Responses) {
    format.only(format.object, {"type", "name", "description", "schema", "strict"});
    return format.member(format.object, "schema");
  }
  format.only(format.object, {"type", "json_schema"});
  const ordered_json& inner = format.member(format.object, "json_schema");
  if (!inner.is_object()) format.fail("has a json_schema that is no object");
  format.only(inner, {"name", "description", "schema", "strict"});
  return format.member(inner, "schema");
}

Grammar grammar_of(const Given& format, const std::string& type, Where where) {
  if (type == "json_object") {
    format.only(format.object, {"type"});
    return grammar_of_json_object();
  }
  if (type == "json_schema") return grammar_from_schema(schema_of(format, where));
  if (type == "regex") {
    format.only(format.object, {"type", "regex"});
    return grammar_from_regex(format.text_member("regex"));
  }
  if (type == "grammar") {
    format.only(format.object, {"type", "grammar"});
    return grammar_from_gbnf(format.text_member("grammar"));
  }
  format.fail(
      fmt::format("has the type '{}', expected text, json_object, json_schema, regex or grammar",
                  printable(type, 40)));
}

}  // namespace

void apply_format(std::string_view body, LoadedModel& model, Plan& plan) {
  const ordered_json request = ordered_json::parse(body);
  const bool responses = plan.where == Responses;
  const Given format = {
      responses ? "text.format" : "response_format",
      responses ? request.at("text").at("format") : request.at("response_format")};
  const auto fail = [&](const std::string& problem) { format.fail(problem); };
  if (plan.format == "text") {
    format.only(format.object, {"type"});
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
    plan.automaton =
        std::make_shared<Automaton>(grammar_of(format, plan.format, plan.where), model.trie());
  } catch (const Error& problem) {
    // Too large to be kept to is the request's fault, not that of the machine.
    if (std::string_view(problem.what()).starts_with("request: ")) throw;
    throw_bad_input(fmt::format("request: {}: {}", format.where, problem.what()));
  }
}

}  // namespace quern::serve
