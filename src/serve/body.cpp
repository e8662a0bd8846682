#include "serve/body.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/field_error.h"
#include "core/json_tree.h"

namespace quern::serve {
void fail_at(const std::string& where, const std::string& problem, std::string hint) {
  throw FieldError("request", where, problem, std::move(hint));
}

const OrderedJson* find_member(const OrderedJson& object, std::string_view name) {
  const OrderedJson* value = object.find(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

const std::string& text_member(const OrderedJson& object, std::string_view name,
                               const std::string& where) {
  const OrderedJson* value = find_member(object, name);
  if (value == nullptr) fail_at(where, fmt::format("lacks the member '{}'", name));
  if (!value->is_string()) fail_at(fmt::format("{}.{}", where, name), "is no string");
  return value->text;
}

void only_members(const OrderedJson& object, const std::string& where,
                  std::initializer_list<std::string_view> known) {
  for (const auto& [name, value] : object.members) {
    if (value.is_null() || std::ranges::find(known, name) != known.end()) continue;
    fail_at(fmt::format("{}.{}", where, printable(name, 60)), "is not known here");
  }
}

Body Body::parse(std::string_view text) {
  constexpr JsonLimits kLimits = {
      .max_bytes = size_t{64} << 20, .max_depth = 64, .max_values = 3'000'000};
  // RFC 8259, 8.1: JSON that travels begins with no byte order mark.
  if (text.starts_with("\xEF\xBB\xBF")) throw FieldError("request", "", "is not valid JSON");
  OrderedJson tree = OrderedJson::parse(text, "request", kLimits);
  if (!tree.is_object()) throw FieldError("request", "", "is not a JSON object");
  Json fields = Json::wrap(to_json_tree(tree), "request");
  return {std::move(tree), std::move(fields)};
}

}  // namespace quern::serve
