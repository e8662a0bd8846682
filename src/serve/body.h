// A request's body, parsed once: as a tree that keeps the order of members, for what is quoted in
// prompts or compiled (messages, tools, schemas), and behind the accessor that checks parameters.
#pragma once

#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "core/json.h"
#include "core/json_tree.h"
#include "core/ordered_json.h"

namespace quern::serve {

// Members of objects in the tree. `where` is the object's path in the request,
// "tools[0].function": errors (BadInput) name the path of the member.
[[noreturn]] void fail_at(const std::string& where, const std::string& problem,
                          std::string hint = {});
// Null where it is absent or null.
const OrderedJson* find_member(const OrderedJson& object, std::string_view name);
const std::string& text_member(const OrderedJson& object, std::string_view name,
                               const std::string& where);
// Throws for the first member that is neither in `known` nor null.
void only_members(const OrderedJson& object, const std::string& where,
                  std::initializer_list<std::string_view> known);

struct Body {
  OrderedJson tree;  // an object
  Json fields;

  // Throws BadInput for what is no JSON object within the limits.
  static Body parse(std::string_view text);
  // A member of the tree; null where it is absent or null.
  const OrderedJson* find(std::string_view name) const { return find_member(tree, name); }
};

}  // namespace quern::serve
