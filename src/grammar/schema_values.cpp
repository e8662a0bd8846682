// Which values fit a schema, and which schemas no value fits both of.
#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/utf8.h"
#include "grammar/schema.h"

namespace quern {
namespace {

using nlohmann::ordered_json;

constexpr int kMaxDepth = 128;
constexpr int64_t kMaxWork = 200'000;
constexpr size_t kMaxStates = 20'000;

// Members in any order, 1 as 1.0.
bool same(const ordered_json& a, const ordered_json& b) {
  if (!a.is_structured() || a.type() != b.type()) return a == b;
  if (a.size() != b.size()) return false;
  if (a.is_array()) return std::ranges::equal(a, b, same);
  return std::ranges::all_of(a.items(), [&](const auto& member) {
    const auto found = b.find(member.key());
    return found != b.end() && same(member.value(), *found);
  });
}

uint8_t type_of(const ordered_json& value) {
  if (value.is_null()) return kNull;
  if (value.is_boolean()) return kBoolean;
  if (value.is_string()) return kString;
  if (value.is_array()) return kArray;
  if (value.is_object()) return kObject;
  if (value.is_number_integer()) return kInteger;
  const auto number = value.get<double>();
  return number == static_cast<double>(static_cast<int64_t>(std::clamp(number, -9e18, 9e18)))
             ? kInteger
             : kFraction;
}

int64_t characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

bool within(int64_t count, int64_t least, int64_t most) {
  return count >= least && (most < 0 || count <= most);
}

bool counts_are_apart(int64_t least_a, int64_t most_a, int64_t least_b, int64_t most_b) {
  return (most_a >= 0 && most_a < least_b) || (most_b >= 0 && most_b < least_a);
}

}  // namespace

bool Schemas::fits(const Json& value, const SchemaList& list, int depth) {
  if (depth > kMaxDepth || ++work_ > kMaxWork) {
    fail(list, "has too much to be compared with its values");
  }
  bool exclusive = false;
  if (const auto options = alternatives(list, exclusive); !options.empty()) {
    const auto count = std::ranges::count_if(
        options, [&](const SchemaList& option) { return fits(value, option, depth + 1); });
    return exclusive ? count == 1 : count > 0;
  }
  const Shape rules = shape(list);
  if ((rules.types & type_of(value)) == 0) return false;
  for (const Json* schema : list) {
    if (!schema->is_object()) continue;
    if (schema->contains("const") && !same(value, (*schema)["const"])) return false;
    if (schema->contains("enum") && std::ranges::none_of((*schema)["enum"], [&](const Json& one) {
          return same(value, one);
        })) {
      return false;
    }
  }
  if (value.is_number()) return is_within(value, rules.numbers);
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    if (!within(characters(text), rules.least_length, rules.most_length)) return false;
    return std::ranges::all_of(rules.texts, [&](const Regex& regex) {
      auto known = automata_.find(regex.get());
      if (known == automata_.end()) {
        known = automata_.emplace(regex.get(), TextAutomaton({&regex, 1}, 0, -1, kMaxStates)).first;
      }
      return known->second.fits(text);
    });
  }
  if (value.is_array()) {
    if (!within(static_cast<int64_t>(value.size()), rules.least_items, rules.most_items)) {
      return false;
    }
    if (rules.unique_items) {
      for (size_t i = 0; i < value.size(); ++i) {
        for (size_t j = 0; j < i; ++j) {
          if (same(value[i], value[j])) return false;
        }
      }
    }
    const ArrayParts parts = array_parts(list);
    for (size_t i = 0; i < value.size(); ++i) {
      if (i >= parts.first.size() && !parts.others) return false;
      const SchemaList& item = i < parts.first.size() ? parts.first[i] : *parts.others;
      if (!fits(value[i], item, depth + 1)) return false;
    }
    return true;
  }
  if (!value.is_object()) return true;
  if (!within(static_cast<int64_t>(value.size()), rules.least_members, rules.most_members)) {
    return false;
  }
  for (const Json* schema : list) {
    if (!schema->is_object()) continue;
    if (schema->contains("required")) {
      for (const Json& name : (*schema)["required"]) {
        if (!name.is_string() || !value.contains(name.get<std::string>())) return false;
      }
    }
    for (const auto& [name, item] : value.items()) {
      const Json* of_item = nullptr;
      if (schema->contains("properties") && (*schema)["properties"].contains(name)) {
        of_item = &(*schema)["properties"][name];
      } else if (schema->contains("additionalProperties")) {
        of_item = &(*schema)["additionalProperties"];
      } else if (schema->contains("unevaluatedProperties")) {
        // What another schema evaluates is its matter; to be certain, nobody's is allowed.
        of_item = &(*schema)["unevaluatedProperties"];
      }
      if (of_item != nullptr && !fits(item, flat({of_item}), depth + 1)) return false;
    }
  }
  return true;
}

bool Schemas::are_apart(const SchemaList& a, const SchemaList& b, int depth) {
  if (depth > 8 || ++work_ > kMaxWork) return false;
  bool exclusive = false;
  const Shape first = shape(a), second = shape(b);
  if ((first.written & second.types) == 0) return true;
  if (first.values) {
    return std::ranges::none_of(*first.values, [&](const Json* value) {
      return fits(*value, a, depth) && fits(*value, b, depth);
    });
  }
  if (second.values && std::ranges::none_of(*second.values, [&](const Json* value) {
        return fits(*value, a, depth) && fits(*value, b, depth);
      })) {
    return true;
  }
  bool apart = true;
  for (const JsonType type : {kNull, kBoolean, kInteger, kFraction, kString, kArray, kObject}) {
    if ((first.written & second.types & type) == 0) continue;
    apart = apart && are_apart(type, a, b, depth);
  }
  if (apart) return true;
  if (const auto options = alternatives(a, exclusive); !options.empty()) {
    return std::ranges::all_of(
        options, [&](const SchemaList& option) { return are_apart(option, b, depth + 1); });
  }
  if (const auto options = alternatives(b, exclusive); !options.empty()) {
    return std::ranges::all_of(
        options, [&](const SchemaList& option) { return are_apart(a, option, depth + 1); });
  }
  return false;
}

bool Schemas::are_apart(JsonType type, const SchemaList& a, const SchemaList& b, int depth) {
  const Shape first = shape(a), second = shape(b);
  switch (type) {
    case kInteger:
    case kFraction:
      return quern::are_apart(first.numbers, second.numbers);
    case kString: {
      if (counts_are_apart(first.least_length, first.most_length, second.least_length,
                           second.most_length)) {
        return true;
      }
      if (first.texts.empty() || second.texts.empty()) return false;
      std::vector<Regex> all = first.texts;
      all.insert(all.end(), second.texts.begin(), second.texts.end());
      try {
        return TextAutomaton(all, 0, -1, kMaxStates).is_empty();
      } catch (const Error&) {
        return false;
      }
    }
    case kArray: {
      if (counts_are_apart(first.least_items, first.most_items, second.least_items,
                           second.most_items)) {
        return true;
      }
      const ArrayParts of_a = array_parts(a), of_b = array_parts(b);
      for (size_t i = 0; static_cast<int64_t>(i) < std::min<int64_t>(first.least_items, 16); ++i) {
        const auto item = [&](const ArrayParts& parts) -> std::optional<SchemaList> {
          return i < parts.first.size() ? std::optional(parts.first[i]) : parts.others;
        };
        const auto item_a = item(of_a), item_b = item(of_b);
        if (!item_a || !item_b || are_apart(*item_a, *item_b, depth + 1)) return true;
      }
      return false;
    }
    case kObject: {
      const ObjectParts of_a = object_parts(a), of_b = object_parts(b);
      const auto find = [](const ObjectParts& parts, const std::string& name) {
        const auto found = std::ranges::find(parts.members, name, &ObjectParts::Member::name);
        return found == parts.members.end() ? nullptr : &*found;
      };
      // What is written has no members but those that are listed, and all that are required.
      for (const auto& member : of_b.members) {
        if (member.required && !of_a.others && find(of_a, member.name) == nullptr) return true;
      }
      for (const auto& member : of_a.members) {
        if (!member.required) continue;
        for (const Json* schema : b) {
          if (!schema->is_object()) continue;
          const bool listed =
              schema->contains("properties") && (*schema)["properties"].contains(member.name);
          const Json* other = listed ? &(*schema)["properties"][member.name]
                              : schema->contains("additionalProperties")
                                  ? &(*schema)["additionalProperties"]
                                  : nullptr;
          if (other == nullptr) continue;
          if (are_apart(member.schema, flat({other}), depth + 1)) return true;
        }
      }
      return false;
    }
    default:
      return false;
  }
}

}  // namespace quern
