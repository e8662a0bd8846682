// A request's body, parsed once: as a tree that keeps the order of members, for what is quoted in
// prompts or compiled (messages, tools, schemas), and behind the accessor that checks parameters.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "core/json.h"
#include "core/json_tree.h"
#include "core/ordered_json.h"

namespace quern::serve {

struct Body {
  OrderedJson tree;  // an object
  Json fields;

  // Throws BadInput for what is no JSON object within the limits.
  static Body parse(std::string_view text);
  // A member of the tree; null where it is absent or null.
  const OrderedJson* find(std::string_view name) const {
    const OrderedJson* value = tree.find(name);
    return value == nullptr || value->is_null() ? nullptr : value;
  }
};

}  // namespace quern::serve
