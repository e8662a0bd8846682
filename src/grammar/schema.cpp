#include "grammar/schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "grammar/format_patterns.h"

namespace quern {
namespace {

using nlohmann::ordered_json;

const ordered_json kFalse = false;

// Say nothing of a value.
constexpr std::string_view kNotes[] = {"title",         "description",      "default",
                                       "examples",      "example",          "$schema",
                                       "$id",           "$anchor",          "$comment",
                                       "$defs",         "definitions",      "deprecated",
                                       "readOnly",      "writeOnly",        "$vocabulary",
                                       "discriminator", "contentMediaType", "contentEncoding"};

struct Keyword {
  std::string_view name;
  uint8_t types;  // of which it speaks; 0: of any
};
constexpr Keyword kKeywords[] = {{"$ref", 0},
                                 {"allOf", 0},
                                 {"anyOf", 0},
                                 {"oneOf", 0},
                                 {"enum", 0},
                                 {"const", 0},
                                 {"type", 0},
                                 {"minimum", kNumber},
                                 {"maximum", kNumber},
                                 {"exclusiveMinimum", kNumber},
                                 {"exclusiveMaximum", kNumber},
                                 {"multipleOf", kNumber},
                                 {"minLength", kString},
                                 {"maxLength", kString},
                                 {"pattern", kString},
                                 {"format", kString},
                                 {"items", kArray},
                                 {"prefixItems", kArray},
                                 {"additionalItems", kArray},
                                 {"minItems", kArray},
                                 {"maxItems", kArray},
                                 {"uniqueItems", kArray},
                                 {"properties", kObject},
                                 {"required", kObject},
                                 {"additionalProperties", kObject},
                                 {"unevaluatedProperties", kObject},
                                 {"minProperties", kObject},
                                 {"maxProperties", kObject}};

const Keyword* find_keyword(std::string_view name) {
  const auto found = std::ranges::find(kKeywords, name, &Keyword::name);
  return found == std::end(kKeywords) ? nullptr : found;
}

bool is_note(std::string_view name) {
  return std::ranges::find(kNotes, name) != std::end(kNotes) || name.starts_with("x-");
}

uint8_t type_of_name(const std::string& name) {
  if (name == "null") return kNull;
  if (name == "boolean") return kBoolean;
  if (name == "integer") return kInteger;
  if (name == "number") return kNumber;
  if (name == "string") return kString;
  if (name == "array") return kArray;
  if (name == "object") return kObject;
  return 0;
}

bool has_member(const ordered_json& schema, const char* name) {
  return schema.is_object() && schema.contains(name);
}

}  // namespace

Schemas::Schemas(const ordered_json& root) : root_(root) { paths_[&root_] = ""; }

void Schemas::fail(const Json* schema, const std::string& problem) const {
  const auto path = schema == nullptr ? paths_.end() : paths_.find(schema);
  const std::string where =
      path == paths_.end() || path->second.empty() ? "/" : printable(path->second, 200);
  throw_bad_input(fmt::format("the schema at {}: {}", where, problem));
}

void Schemas::fail(const SchemaList& list, const std::string& problem) const {
  fail(list.empty() ? nullptr : list[0], problem);
}

const ordered_json* Schemas::child(const Json& parent, const Json& schema,
                                   const std::string& path) {
  const auto known = paths_.find(&parent);
  paths_.try_emplace(&schema, (known == paths_.end() ? "" : known->second) + path);
  return &schema;
}

void Schemas::check_keywords(const Json& schema) {
  if (!checked_.insert(&schema).second) return;
  for (const auto& [name, value] : schema.items()) {
    if (is_note(name)) continue;
    if (find_keyword(name) == nullptr) {
      fail(&schema, fmt::format("'{}' cannot be kept to here", printable(name, 60)));
    }
  }
}

const ordered_json& Schemas::target(const Json& schema, const Json& name) {
  if (!name.is_string()) fail(&schema, "$ref is no string");
  const std::string& text = name.get_ref<const std::string&>();
  if (!text.starts_with('#')) fail(&schema, "$ref leads out of the schema; nothing is fetched");
  try {
    const Json& found = root_.at(ordered_json::json_pointer(text.substr(1)));
    paths_.try_emplace(&found, text.substr(1));
    return found;
  } catch (const nlohmann::json::exception&) {
    fail(&schema, fmt::format("$ref '{}' leads nowhere", printable(text, 80)));
  }
}

const ordered_json* Schemas::without(const Json* schema, const std::vector<std::string>& keywords) {
  const auto key = std::pair(schema, keywords);
  if (const auto known = made_of_.find(key); known != made_of_.end()) return known->second;
  Json& copy = made_.emplace_back(*schema);
  for (const std::string& keyword : keywords) copy.erase(keyword);
  const auto path = paths_.find(schema);
  paths_[&copy] = path == paths_.end() ? "" : path->second;
  made_of_[key] = &copy;
  return &copy;
}

void Schemas::flatten(const Json& schema, Walk& walk, SchemaList& out) {
  if (schema.is_boolean()) {
    if (!schema.get<bool>()) out.push_back(&kFalse);
    return;
  }
  if (!schema.is_object()) fail(&schema, "is neither an object nor true or false");
  check_keywords(schema);
  if (std::ranges::find(walk.active, &schema) != walk.active.end()) {
    fail(&schema, "$ref leads back to where it stands");
  }
  if (walk.active.size() > size_t{kMaxNesting}) fail(&schema, "is nested too deeply");
  if (!walk.seen.insert(&schema).second) return;
  walk.active.push_back(&schema);
  if (schema.contains("$ref")) flatten(target(schema, schema["$ref"]), walk, out);
  if (schema.contains("allOf")) {
    const Json& all = schema["allOf"];
    if (!all.is_array() || all.empty()) fail(&schema, "allOf is no list with an item");
    for (size_t i = 0; i < all.size(); ++i) {
      flatten(*child(schema, all[i], fmt::format("/allOf/{}", i)), walk, out);
    }
  }
  walk.active.pop_back();
  const bool says_more = std::ranges::any_of(schema.items(), [](const auto& member) {
    return !is_note(member.key()) && member.key() != "$ref" && member.key() != "allOf";
  });
  if (!says_more) return;
  const bool bare = !schema.contains("$ref") && !schema.contains("allOf");
  const Json* own = bare ? &schema : without(&schema, {"$ref", "allOf"});
  checked_.insert(own);
  if (bare || walk.seen.insert(own).second) out.push_back(own);
}

SchemaList Schemas::flat(const std::vector<const Json*>& schemas) {
  SchemaList out;
  Walk walk;
  for (const Json* schema : schemas) flatten(*schema, walk, out);
  return out;
}

std::vector<SchemaList> Schemas::alternatives(const SchemaList& list, bool& exclusive) {
  for (size_t i = 0; i < list.size(); ++i) {
    for (const char* keyword : {"anyOf", "oneOf"}) {
      if (!has_member(*list[i], keyword)) continue;
      exclusive = std::string_view(keyword) == "oneOf";
      const Json& options = (*list[i])[keyword];
      if (!options.is_array() || options.empty()) {
        fail(list[i], fmt::format("{} is no list with an item", keyword));
      }
      std::vector<SchemaList> out;
      for (size_t option = 0; option < options.size(); ++option) {
        std::vector<const Json*> all = list;
        all[i] = without(list[i], {keyword});
        all.push_back(child(*list[i], options[option], fmt::format("/{}/{}", keyword, option)));
        out.push_back(flat(all));
      }
      return out;
    }
  }
  return {};
}

int64_t Schemas::count(const Json& schema, const char* name, int64_t fallback) const {
  const auto found = schema.find(name);
  if (found == schema.end()) return fallback;
  if (!found->is_number_integer() || *found < 0 || *found > int64_t{1} << 40) {
    fail(&schema, fmt::format("{} is no count", name));
  }
  return found->get<int64_t>();
}

Regex Schemas::text(const Json& schema, const char* keyword) {
  const Json& value = schema[keyword];
  if (!value.is_string()) fail(&schema, fmt::format("{} is no string", keyword));
  const std::string& given = value.get_ref<const std::string&>();
  const auto key = std::pair<std::string, std::string>(keyword, given);
  if (const auto known = texts_.find(key); known != texts_.end()) return known->second;
  std::string pattern = given;
  if (std::string_view(keyword) == "format") {
    pattern = format_pattern(given);
    if (pattern.empty()) {
      fail(&schema, fmt::format("the format '{}' cannot be kept to here; known are {}",
                                printable(given, 40), known_formats()));
    }
  }
  try {
    return texts_[key] = parse_regex(pattern, RegexUse::Search);
  } catch (const Error& problem) {
    fail(&schema, fmt::format("'{}' cannot be kept to here: {}", keyword, problem.what()));
  }
}

Shape Schemas::shape(const SchemaList& list) {
  Shape out;
  uint8_t spoken_of = 0;
  bool typed = false;
  const auto raise = [](int64_t& least, int64_t by) { least = std::max(least, by); };
  const auto lower = [](int64_t& most, int64_t by) {
    if (by >= 0) most = most < 0 ? by : std::min(most, by);
  };
  for (const Json* schema : list) {
    if (schema->is_boolean()) {
      out.types = 0;
      out.says_nothing = false;
      continue;
    }
    for (const auto& [name, value] : schema->items()) {
      const Keyword* keyword = find_keyword(name);
      if (keyword == nullptr) continue;
      out.says_nothing = false;
      spoken_of |= keyword->types;
    }
    const auto has = [&](const char* name) { return schema->contains(name); };
    if (has("type")) {
      typed = true;
      const Json& type = (*schema)["type"];
      uint8_t types = 0;
      for (const Json& name : type.is_array() ? type : Json::array({type})) {
        if (!name.is_string()) fail(schema, "type is neither a name nor a list of names");
        const uint8_t one = type_of_name(name.get<std::string>());
        if (one == 0) {
          fail(schema,
               fmt::format("the type '{}' is none", printable(name.get<std::string>(), 40)));
        }
        types |= one;
      }
      if (types == 0) fail(schema, "type is an empty list");
      out.types &= types;
    }
    if (has("enum") || has("const")) {
      std::vector<const Json*> values;
      if (has("enum")) {
        const Json& list_of = (*schema)["enum"];
        if (!list_of.is_array()) fail(schema, "enum is no list");
        for (const Json& value : list_of) values.push_back(&value);
      } else {
        values = {&(*schema)["const"]};
      }
      if (!out.values) out.values = std::move(values);  // fits() takes out what others forbid
    }
    const auto bound = [&](const char* name, bool open, std::optional<NumberBounds::Bound>& at,
                           bool least) {
      if (!has(name)) return;
      const Json& number = (*schema)[name];
      if (!number.is_number()) fail(schema, fmt::format("{} is no number", name));
      const NumberBounds::Bound given = {Decimal::of(number), open};
      if (at) {
        const double now = at->at.value(), then = given.at.value();
        const bool tighter = least ? then > now : then < now;
        if (!tighter && !(then == now && open)) return;
      }
      at = given;
    };
    bound("minimum", false, out.numbers.least, true);
    bound("exclusiveMinimum", true, out.numbers.least, true);
    bound("maximum", false, out.numbers.most, false);
    bound("exclusiveMaximum", true, out.numbers.most, false);
    if (has("multipleOf")) {
      const Json& number = (*schema)["multipleOf"];
      if (!number.is_number() || number <= 0) fail(schema, "multipleOf is no positive number");
      out.numbers.multiples.push_back(Decimal::of(number));
    }
    raise(out.least_length, count(*schema, "minLength", 0));
    lower(out.most_length, count(*schema, "maxLength", -1));
    for (const char* keyword : {"pattern", "format"}) {
      if (has(keyword)) out.texts.push_back(text(*schema, keyword));
    }
    raise(out.least_items, count(*schema, "minItems", 0));
    lower(out.most_items, count(*schema, "maxItems", -1));
    if (has("uniqueItems")) {
      const Json& unique = (*schema)["uniqueItems"];
      if (!unique.is_boolean()) fail(schema, "uniqueItems is neither true nor false");
      out.unique_items |= unique.get<bool>();
    }
    raise(out.least_members, count(*schema, "minProperties", 0));
    lower(out.most_members, count(*schema, "maxProperties", -1));
  }
  out.written = typed || spoken_of == 0 ? out.types : out.types & spoken_of;
  const auto check = [&](int64_t least, int64_t most, const char* least_name,
                         const char* most_name) {
    if (most >= 0 && least > most) {
      fail(list, fmt::format("{} is more than {}", least_name, most_name));
    }
  };
  check(out.least_length, out.most_length, "minLength", "maxLength");
  check(out.least_items, out.most_items, "minItems", "maxItems");
  check(out.least_members, out.most_members, "minProperties", "maxProperties");
  return out;
}

ArrayParts Schemas::array_parts(const SchemaList& list) {
  struct Own {
    const Json* schema;
    std::vector<const Json*> first;
    const Json* others = nullptr;
  };
  std::vector<Own> all;
  size_t longest = 0;
  for (const Json* schema : list) {
    if (!schema->is_object()) continue;
    Own own = {schema, {}, nullptr};
    // A list of items is what older drafts called prefixItems, with additionalItems behind it.
    const bool old = has_member(*schema, "items") && (*schema)["items"].is_array();
    const char* first = old ? "items" : "prefixItems";
    const char* others = old ? "additionalItems" : "items";
    if (!old && has_member(*schema, "additionalItems")) {
      fail(schema, "additionalItems stands without a list of items");
    }
    if (has_member(*schema, first)) {
      const Json& items = (*schema)[first];
      if (!items.is_array()) fail(schema, fmt::format("{} is no list", first));
      for (size_t i = 0; i < items.size(); ++i) {
        own.first.push_back(child(*schema, items[i], fmt::format("/{}/{}", first, i)));
      }
    }
    if (has_member(*schema, others)) {
      own.others = child(*schema, (*schema)[others], fmt::format("/{}", others));
    }
    longest = std::max(longest, own.first.size());
    all.push_back(std::move(own));
  }
  ArrayParts out;
  const auto at = [&](size_t index) {
    std::vector<const Json*> schemas;
    for (const Own& own : all) {
      if (index < own.first.size()) {
        schemas.push_back(own.first[index]);
      } else if (own.others != nullptr) {
        schemas.push_back(own.others);
      }
    }
    return schemas;
  };
  for (size_t i = 0; i < longest; ++i) out.first.push_back(flat(at(i)));
  const std::vector<const Json*> others = at(longest);
  out.others_named = !others.empty();
  const bool none = std::ranges::any_of(
      others, [](const Json* schema) { return schema->is_boolean() && !schema->get<bool>(); });
  if (!none) out.others = flat(others);
  return out;
}

ObjectParts Schemas::object_parts(const SchemaList& list) {
  std::vector<std::string> names;
  std::set<std::string> required;
  const auto add = [&](const std::string& name) {
    if (std::ranges::find(names, name) == names.end()) names.push_back(name);
  };
  bool closed = false, others_named = false;
  for (const Json* schema : list) {
    if (!has_member(*schema, "properties")) continue;
    if (!(*schema)["properties"].is_object()) fail(schema, "properties is no object");
    for (const auto& [name, value] : (*schema)["properties"].items()) add(name);
  }
  const bool listed = !names.empty();
  for (const Json* schema : list) {
    if (has_member(*schema, "required")) {
      const Json& given = (*schema)["required"];
      if (!given.is_array()) fail(schema, "required is no list");
      for (const Json& name : given) {
        if (!name.is_string()) fail(schema, "required has an item that is no name");
        add(name.get<std::string>());
        required.insert(name.get<std::string>());
      }
    }
    for (const char* keyword : {"additionalProperties", "unevaluatedProperties"}) {
      if (!has_member(*schema, keyword)) continue;
      const Json& others = (*schema)[keyword];
      closed |= others.is_boolean() && !others.get<bool>();
      others_named |= others.is_object();
    }
  }
  ObjectParts out;
  for (const std::string& name : names) {
    std::vector<const Json*> schemas;
    for (const Json* schema : list) {
      if (!schema->is_object()) continue;
      if (has_member(*schema, "properties") && (*schema)["properties"].contains(name)) {
        schemas.push_back(
            child(*schema, (*schema)["properties"][name], fmt::format("/properties/{}", name)));
      } else if (has_member(*schema, "additionalProperties")) {
        schemas.push_back(
            child(*schema, (*schema)["additionalProperties"], "/additionalProperties"));
      } else if (has_member(*schema, "unevaluatedProperties") && !listed) {
        schemas.push_back(
            child(*schema, (*schema)["unevaluatedProperties"], "/unevaluatedProperties"));
      }
    }
    ObjectParts::Member member = {name, flat(schemas), required.contains(name)};
    const bool forbidden = std::ranges::find(member.schema, &kFalse) != member.schema.end();
    if (forbidden && member.required) {
      fail(list, fmt::format("requires '{}', which may not be there", printable(name, 60)));
    }
    if (!forbidden) out.members.push_back(std::move(member));
  }
  // Beside properties others come only where the schema says what they are.
  if (closed || (!names.empty() && !others_named)) return out;
  std::vector<const Json*> others;
  for (const Json* schema : list) {
    for (const char* keyword : {"additionalProperties", "unevaluatedProperties"}) {
      if (has_member(*schema, keyword)) {
        others.push_back(child(*schema, (*schema)[keyword], fmt::format("/{}", keyword)));
      }
    }
  }
  out.others = flat(others);
  return out;
}

}  // namespace quern
