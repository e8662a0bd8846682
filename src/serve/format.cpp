#include "serve/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/field_error.h"

namespace quern::serve {
namespace {

using nlohmann::ordered_json;

// The format's object, and where in the request it stands.
struct Given {
  std::string where;
  ordered_json object;

  [[noreturn]] void fail(const std::string& problem) const {
    throw FieldError("request", where, problem);
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

// In chat, schema and name stand in an object of their own; in responses, beside the type.
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

Grammar grammar_of_choice(const Given& format) {
  if (!format.object.is_array() || format.object.empty()) format.fail("is no list with a text");
  Grammar grammar;
  const uint32_t root = grammar.new_rule();
  for (const ordered_json& text : format.object) {
    if (!text.is_string()) format.fail("has an item that is no string");
    grammar.add(root, grammar.literal(text.get_ref<const std::string&>()));
  }
  grammar.finish(root);
  return grammar;
}

const std::string& whole_text(const Given& format) {
  if (!format.object.is_string()) format.fail("is no string");
  return format.object.get_ref<const std::string&>();
}

// Some clients send guided_json as text.
ordered_json schema_in(const Given& format) {
  if (!format.object.is_string()) return format.object;
  try {
    return to_ordered_tree(OrderedJson::parse(whole_text(format), format.where));
  } catch (const Error&) {
    format.fail("is no JSON");
  }
}

struct Wanted {
  Given given;
  std::string type;
};

// The one format that a request names, if it names any.
std::optional<Wanted> wanted_format(const Body& body, const Parameters& given) {
  std::optional<Wanted> out;
  const auto take = [&](std::string where, const OrderedJson& value, std::string type) {
    if (out) {
      throw FieldError("request", where, "is given together with " + out->given.where);
    }
    out = Wanted{{std::move(where), to_ordered_tree(value)}, std::move(type)};
  };
  if (given.where() == Messages) return out;
  if (given.where() == Responses) {
    const OrderedJson* text = body.find("text");
    const OrderedJson* format = text == nullptr ? nullptr : text->find("format");
    if (format != nullptr && !format->is_null()) {
      take("text.format", *format, given.other("text")->at("format").at("type").string());
    }
    return out;
  }
  if (const OrderedJson* format = body.find("response_format")) {
    take("response_format", *format, given.other("response_format")->at("type").string());
  }
  for (const char* name : {"guided_json", "guided_regex", "guided_choice", "guided_grammar"}) {
    if (const OrderedJson* format = body.find(name)) take(name, *format, name);
  }
  return out;
}

Grammar grammar_of_wanted(const Wanted& wanted, Where where) {
  const Given& given = wanted.given;
  if (wanted.type == "guided_json") return grammar_from_schema(schema_in(given));
  if (wanted.type == "guided_regex") return grammar_from_regex(whole_text(given));
  if (wanted.type == "guided_choice") return grammar_of_choice(given);
  if (wanted.type == "guided_grammar") return grammar_from_gbnf(whole_text(given));
  return grammar_of(given, wanted.type, where);
}

}  // namespace

void apply_format(const Body& body, const Parameters& given, LoadedModel& model, Plan& plan) {
  const std::optional<Wanted> wanted = wanted_format(body, given);
  const bool text = wanted && wanted->type == "text";
  if (text) wanted->given.only(wanted->given.object, {"type"});
  if (wanted) plan.format = wanted->type;
  const bool kept = wanted && !text;
  const bool of_tools = plan.tools.constrains();
  if (!kept && !of_tools) return;
  const std::string field = kept ? wanted->given.where : "tools";
  const auto fail = [&](const std::string& problem) {
    throw FieldError("request", field, problem);
  };
  if (kept && of_tools) fail("and tools that the answer must call cannot both be kept to");
  if (kept && plan.tools.any()) plan.tools.choice = ToolUse::Choice::None;
  const std::string what = kept ? printable(plan.format, 40) : "asked of the answer";
  if (plan.base.stop.ids.empty() || plan.base.stop.ignore_ids) {
    fail(fmt::format("is {}, which needs a token to end with, and this request has none", what));
  }
  for (const TokenId id : plan.base.stop.ids) {
    if (id >= model.model.config().output_vocab) {
      fail("needs stop_token_ids that the model can say");
    }
  }
  if (!plan.base.stop.strings.empty()) {
    fail(fmt::format("is {}, which the stop strings could cut", what));
  }
  if (plan.min_tokens > 0) {
    fail(fmt::format("is {}, which may be shorter than min_tokens", what));
  }
  plan.base.stop.sequences.clear();  // they could end it where the format does not
  try {
    Grammar grammar = kept ? grammar_of_wanted(*wanted, plan.where)
                           : tool_grammar(plan.tools, *plan.reply.tools, plan.reply.reasoning,
                                          plan.reply.in_reasoning);
    plan.automaton = std::make_shared<Automaton>(std::move(grammar), model.trie());
  } catch (const FieldError&) {
    throw;
  } catch (const Error& problem) {
    // Too large to be kept to is the request's fault, not that of the machine.
    throw FieldError("request", field, fmt::format("cannot be kept to: {}", problem.what()));
  }
  // A format covers the whole answer, so there is no reasoning to split off.
  if (kept) plan.reply = {};
}

}  // namespace quern::serve
