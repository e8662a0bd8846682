// Grammars of JSON: any object, or what a JSON Schema describes.
//
// Every text of the grammar is valid by the schema; not every valid text is in it: members come in
// the schema's order, an object with properties has no others, spaces are few. A keyword whose
// meaning could not be kept to is refused.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/error.h"
#include "core/json.h"
#include "grammar/grammar.h"

namespace quern {
namespace {

using nlohmann::ordered_json;
using Symbol = Grammar::Symbol;
using Sequence = Grammar::Sequence;

void append(Sequence& out, const Sequence& more) {
  out.insert(out.end(), more.begin(), more.end());
}

class SchemaCompiler {
 public:
  explicit SchemaCompiler(const ordered_json& schema) : schema_(schema) {}

  Grammar compile() {
    const Symbol root = value(schema_, "", 0);
    return finish(root);
  }
  Grammar any_object() {
    any();
    return finish(*object_);
  }

 private:
  [[noreturn]] static void fail(const std::string& path, const std::string& problem) {
    throw_bad_input(
        fmt::format("the schema at {}: {}", path.empty() ? "/" : printable(path, 200), problem));
  }
  Grammar finish(Symbol root) {
    const uint32_t rule = g_.new_rule();
    g_.add(rule, {root});
    g_.finish(rule);
    return std::move(g_);
  }
  Symbol one_of(const std::vector<Sequence>& list) {
    const uint32_t rule = g_.new_rule();
    for (const Sequence& sequence : list) g_.add(rule, sequence);
    return Grammar::of_rule(rule);
  }
  Symbol range(const CodePoints& ranges) { return g_.characters(ranges); }

  // ---- Scalars ----
  Symbol space() {
    if (!space_) space_ = one_of({{}, g_.literal(" ")});
    return *space_;
  }
  Symbol character() {
    if (character_) return *character_;
    const Symbol hex = range({{'0', '9'}, {'a', 'f'}, {'A', 'F'}});
    // No surrogates: half a pair is no character.
    const Symbol not_d = range({{'0', '9'}, {'a', 'c'}, {'e', 'f'}, {'A', 'C'}, {'E', 'F'}});
    Sequence simple = g_.literal("\\"), plain = g_.literal("\\u"), low = g_.literal("\\u");
    append(simple, {range({{'"', '"'},
                           {'\\', '\\'},
                           {'/', '/'},
                           {'b', 'b'},
                           {'f', 'f'},
                           {'n', 'n'},
                           {'r', 'r'},
                           {'t', 't'}})});
    append(plain, {not_d, hex, hex, hex});
    append(low, {range({{'d', 'd'}, {'D', 'D'}}), range({{'0', '7'}}), hex, hex});
    const Symbol raw = range(Grammar::complement({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}));
    character_ = one_of({{raw}, simple, plain, low});
    return *character_;
  }
  Symbol string(int64_t least, int64_t most) {
    if (least == 0 && most < 0 && string_) return *string_;
    Sequence out = g_.literal("\"");
    out.push_back(g_.repeat({character()}, least, most));
    append(out, g_.literal("\""));
    const Symbol made = one_of({out});
    if (least == 0 && most < 0) string_ = made;
    return made;
  }
  Symbol integer() {
    if (integer_) return *integer_;
    const Symbol digit = range({{'0', '9'}});
    const Symbol minus = one_of({{}, g_.literal("-")});
    // Within 2^53, so that readers with doubles get the same number.
    const Symbol big = one_of({{range({{'1', '9'}}), g_.repeat({digit}, 0, 14)}});
    integer_ = one_of({{minus, big}, g_.literal("0")});
    return *integer_;
  }
  Symbol number() {
    if (number_) return *number_;
    const Symbol digit = range({{'0', '9'}});
    Sequence fraction = g_.literal(".");
    fraction.push_back(g_.repeat({digit}, 1, 15));
    // Two digits of exponent: no double overflows.
    const Sequence exponent = {range({{'e', 'e'}, {'E', 'E'}}),
                               one_of({{}, g_.literal("+"), g_.literal("-")}),
                               g_.repeat({digit}, 1, 2)};
    number_ = one_of({{integer(), one_of({{}, fraction}), one_of({{}, exponent})}});
    return *number_;
  }

  // ---- Any value ----
  Symbol any() {
    if (any_) return *any_;
    const uint32_t rule = g_.new_rule(), object = g_.new_rule(), array = g_.new_rule();
    any_ = Grammar::of_rule(rule);
    object_ = Grammar::of_rule(object);
    array_ = Grammar::of_rule(array);
    g_.add(object, {map(*any_, 0, -1)});
    g_.add(array, {list({}, *any_, 0, -1)});
    g_.add(rule, {string(0, -1)});
    g_.add(rule, {number()});
    g_.add(rule, {*object_});
    g_.add(rule, {*array_});
    for (const char* word : {"true", "false", "null"}) g_.add(rule, g_.literal(word));
    return *any_;
  }
  Sequence comma() {
    Sequence out = g_.literal(",");
    out.push_back(space());
    return out;
  }
  // `least` to `most` items with commas between.
  Symbol list_of(const Sequence& item, int64_t least, int64_t most) {
    if (most == 0) return one_of({{}});
    Sequence next = comma();
    append(next, item);
    Sequence some = item;
    some.push_back(g_.repeat(next, std::max<int64_t>(least - 1, 0), most < 0 ? -1 : most - 1));
    return least > 0 ? one_of({some}) : one_of({{}, some});
  }
  Symbol map(Symbol value, int64_t least, int64_t most) {
    Sequence item = {string(0, -1)};
    append(item, g_.literal(":"));
    append(item, {space(), value});
    Sequence out = g_.literal("{");
    out.push_back(list_of(item, least, most));
    append(out, g_.literal("}"));
    return one_of({out});
  }
  Symbol list(const Sequence& first, std::optional<Symbol> item, int64_t least, int64_t most) {
    Sequence out = g_.literal("[");
    for (size_t i = 0; i < first.size(); ++i) {
      if (i > 0) append(out, comma());
      out.push_back(first[i]);
    }
    if (first.empty() && item) out.push_back(list_of({*item}, least, most));
    append(out, g_.literal("]"));
    return one_of({out});
  }

  // ---- Schemas ----
  void only(const ordered_json& schema, const std::string& path,
            std::initializer_list<std::string_view> known) {
    constexpr std::string_view kNotes[] = {"title",       "description", "default",  "examples",
                                           "$schema",     "$id",         "$comment", "$defs",
                                           "definitions", "deprecated",  "readOnly", "writeOnly"};
    for (const auto& [name, value] : schema.items()) {
      if (std::ranges::find(kNotes, name) != std::end(kNotes)) continue;
      if (std::find(known.begin(), known.end(), name) == known.end()) {
        fail(path, fmt::format("'{}' cannot be kept to here", printable(name, 60)));
      }
    }
  }
  static int64_t bound(const ordered_json& schema, const std::string& path, const char* name,
                       int64_t fallback) {
    const auto found = schema.find(name);
    if (found == schema.end()) return fallback;
    if (!found->is_number_integer() || *found < 0 || *found > int64_t{1} << 40) {
      fail(path, fmt::format("{} is no count", name));
    }
    return found->get<int64_t>();
  }
  static std::pair<int64_t, int64_t> bounds(const ordered_json& schema, const std::string& path,
                                            const char* least_name, const char* most_name) {
    const int64_t least = bound(schema, path, least_name, 0);
    const int64_t most = bound(schema, path, most_name, -1);
    if (most >= 0 && least > most) {
      fail(path, fmt::format("{} is more than {}", least_name, most_name));
    }
    return {least, most};
  }

  Symbol value(const ordered_json& schema, const std::string& path, int depth) {
    if (depth > kMaxNesting) fail(path, "is nested too deeply");
    if (schema.is_boolean()) {
      if (schema.get<bool>()) return any();
      return one_of({});  // nothing fits; whoever needs it can have no text
    }
    if (!schema.is_object()) fail(path, "is neither an object nor true or false");
    if (schema.contains("$ref")) {
      only(schema, path, {"$ref"});
      return reference(schema["$ref"], path, depth);
    }
    if (schema.contains("anyOf")) {
      only(schema, path, {"anyOf"});
      const ordered_json& options = schema["anyOf"];
      if (!options.is_array() || options.empty()) fail(path, "anyOf is no list with an item");
      std::vector<Sequence> list;
      for (size_t i = 0; i < options.size(); ++i) {
        list.push_back({value(options[i], fmt::format("{}/anyOf/{}", path, i), depth + 1)});
      }
      return one_of(list);
    }
    if (schema.contains("enum") || schema.contains("const")) return constants(schema, path);
    const auto type = schema.find("type");
    if (type == schema.end()) {
      only(schema, path, {"properties", "required", "additionalProperties"});
      if (schema.contains("properties") || schema.contains("required") ||
          schema.contains("additionalProperties")) {
        return typed(schema, "object", path, depth, false);
      }
      return any();
    }
    if (type->is_string()) return typed(schema, type->get<std::string>(), path, depth, false);
    if (!type->is_array() || type->empty())
      fail(path, "type is neither a name nor a list of names");
    std::vector<Sequence> list;
    for (const ordered_json& name : *type) {
      if (!name.is_string()) fail(path, "type is neither a name nor a list of names");
      list.push_back({typed(schema, name.get<std::string>(), path, depth, true)});
    }
    return one_of(list);
  }

  static bool fits(const ordered_json& value, const std::string& type) {
    if (type == "integer") return value.is_number_integer();
    if (type == "number") return value.is_number();
    return type == value.type_name() || (type == "boolean" && value.is_boolean());
  }

  Symbol constants(const ordered_json& schema, const std::string& path) {
    only(schema, path, {"enum", "const", "type"});
    ordered_json list = ordered_json::array();
    if (schema.contains("enum")) {
      if (!schema["enum"].is_array()) fail(path, "enum is no list");
      list = schema["enum"];
      if (schema.contains("const")) {
        std::vector<ordered_json> both;
        for (const ordered_json& item : list) {
          if (item == schema["const"]) both.push_back(item);
        }
        list = both;
      }
    } else {
      list.push_back(schema["const"]);
    }
    std::vector<std::string> types;
    if (const auto type = schema.find("type"); type != schema.end()) {
      for (const ordered_json& name : type->is_array() ? *type : ordered_json::array({*type})) {
        if (!name.is_string()) fail(path, "type is neither a name nor a list of names");
        types.push_back(name.get<std::string>());
      }
    }
    std::vector<Sequence> texts;
    for (const ordered_json& item : list) {
      const bool good = types.empty() || std::ranges::any_of(types, [&](const std::string& type) {
                          return fits(item, type);
                        });
      if (good) texts.push_back(g_.literal(dump(item)));
    }
    if (texts.empty()) fail(path, "no value fits");
    return one_of(texts);
  }

  Symbol typed(const ordered_json& schema, const std::string& type, const std::string& path,
               int depth, bool one_of_many) {
    // With several types every keyword is known that one of them knows.
    const auto known = [&](std::initializer_list<std::string_view> names) {
      if (one_of_many) {
        only(schema, path,
             {"type", "minLength", "maxLength", "properties", "required", "additionalProperties",
              "minProperties", "maxProperties", "items", "prefixItems", "minItems", "maxItems"});
      } else {
        only(schema, path, names);
      }
    };
    if (type == "string") {
      known({"type", "minLength", "maxLength"});
      const auto [least, most] = bounds(schema, path, "minLength", "maxLength");
      return string(least, most);
    }
    if (type == "integer" || type == "number") {
      known({"type"});
      return type == "integer" ? integer() : number();
    }
    if (type == "boolean") {
      known({"type"});
      return one_of({g_.literal("true"), g_.literal("false")});
    }
    if (type == "null") {
      known({"type"});
      return one_of({g_.literal("null")});
    }
    if (type == "array") {
      known({"type", "items", "minItems", "maxItems"});
      if (schema.contains("prefixItems")) fail(path, "'prefixItems' cannot be kept to here");
      const auto [least, most] = bounds(schema, path, "minItems", "maxItems");
      const auto items = schema.find("items");
      const Symbol item = items == schema.end() ? any() : value(*items, path + "/items", depth + 1);
      return list({}, item, least, most);
    }
    if (type == "object") {
      known({"type", "properties", "required", "additionalProperties", "minProperties",
             "maxProperties"});
      return object(schema, path, depth);
    }
    fail(path, fmt::format("the type '{}' is none", printable(type, 40)));
  }

  Symbol object(const ordered_json& schema, const std::string& path, int depth) {
    static const ordered_json kNone = ordered_json::object(), kAny = true;
    const ordered_json& properties = schema.contains("properties") ? schema["properties"] : kNone;
    if (!properties.is_object()) fail(path, "properties is no object");
    const ordered_json& others =
        schema.contains("additionalProperties") ? schema["additionalProperties"] : kAny;
    std::vector<std::string> required;
    if (const auto names = schema.find("required"); names != schema.end()) {
      if (!names->is_array()) fail(path, "required is no list");
      for (const ordered_json& name : *names) {
        if (!name.is_string()) fail(path, "required has an item that is no name");
        required.push_back(name.get<std::string>());
      }
    }
    const auto [least, most] = bounds(schema, path, "minProperties", "maxProperties");
    if (properties.empty() && required.empty()) {
      if (others.is_boolean() && !others.get<bool>()) {
        if (least > 0) fail(path, "minProperties asks for members that may not be there");
        return one_of({g_.literal("{}")});
      }
      // The names are the model's, and it may say one twice: that counts once.
      if (least > 1) fail(path, "minProperties above 1 cannot be kept to here");
      return map(value(others, path + "/additionalProperties", depth + 1), least, most);
    }
    if (schema.contains("minProperties") || schema.contains("maxProperties")) {
      fail(path, "minProperties and maxProperties beside properties cannot be kept to here");
    }
    struct Member {
      Sequence text;
      bool needed;
    };
    std::vector<Member> members;
    const auto add = [&](const std::string& name, const ordered_json& what, const std::string& at) {
      Sequence text = g_.literal(dump(ordered_json(name)) + ":");
      append(text, {space(), value(what, at, depth + 1)});
      members.push_back({text, std::ranges::find(required, name) != required.end()});
    };
    for (const auto& [name, what] : properties.items())
      add(name, what, path + "/properties/" + name);
    for (size_t i = 0; i < required.size(); ++i) {
      const bool again = std::find(required.begin(), required.begin() + static_cast<int64_t>(i),
                                   required[i]) != required.begin() + static_cast<int64_t>(i);
      if (again || properties.contains(required[i])) continue;
      if (others.is_boolean() && !others.get<bool>()) {
        fail(path,
             fmt::format("requires '{}', which may not be there", printable(required[i], 60)));
      }
      add(required[i], others, path + "/additionalProperties");
    }
    // What may follow when nothing came yet, and when something did: from the last member back.
    Symbol fresh = one_of({{}}), after = fresh;
    for (size_t i = members.size(); i-- > 0;) {
      Sequence begin = members[i].text, go_on = comma();
      begin.push_back(after);
      append(go_on, members[i].text);
      go_on.push_back(after);
      std::vector<Sequence> first = {begin}, later = {go_on};
      if (!members[i].needed) {
        first.push_back({fresh});
        later.push_back({after});
      }
      fresh = one_of(first);
      after = one_of(later);
    }
    Sequence out = g_.literal("{");
    out.push_back(fresh);
    append(out, g_.literal("}"));
    return one_of({out});
  }

  Symbol reference(const ordered_json& target, const std::string& path, int depth) {
    if (!target.is_string()) fail(path, "$ref is no string");
    const std::string& name = target.get_ref<const std::string&>();
    if (!name.starts_with('#')) fail(path, "$ref leads out of the schema; nothing is fetched");
    if (const auto known = references_.find(name); known != references_.end()) {
      return Grammar::of_rule(known->second);
    }
    const ordered_json* found = nullptr;
    try {
      found = &schema_.at(nlohmann::ordered_json::json_pointer(name.substr(1)));
    } catch (const nlohmann::json::exception&) {
      fail(path, fmt::format("$ref '{}' leads nowhere", printable(name, 80)));
    }
    const uint32_t rule = g_.new_rule();
    references_[name] = rule;
    g_.add(rule, {value(*found, name.substr(1), depth + 1)});
    return Grammar::of_rule(rule);
  }

  const ordered_json& schema_;
  Grammar g_;
  std::unordered_map<std::string, uint32_t> references_;
  std::optional<Symbol> space_, character_, string_, integer_, number_, any_, object_, array_;
};

}  // namespace

Grammar grammar_from_schema(const ordered_json& schema) {
  if (schema.dump().size() > kMaxGrammarBytes) {
    throw_bad_input(fmt::format("the schema has more than {} bytes", kMaxGrammarBytes));
  }
  return SchemaCompiler(schema).compile();
}

Grammar grammar_of_json_object() {
  static const ordered_json kNone = ordered_json::object();
  return SchemaCompiler(kNone).any_object();
}

}  // namespace quern
