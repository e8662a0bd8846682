#include "core/json_tree.h"

#include <charconv>
#include <cstdlib>
#include <nlohmann/json.hpp>

namespace quern {
namespace {

// Recursion is bounded by the parser's depth limit.
template <class Tree>
Tree convert(const OrderedJson& value) {
  switch (value.kind) {
    case OrderedJson::Kind::Null:
      return nullptr;
    case OrderedJson::Kind::Bool:
      return value.boolean;
    case OrderedJson::Kind::Integer: {
      const char* end = value.text.data() + value.text.size();
      int64_t number = 0;
      if (std::from_chars(value.text.data(), end, number).ec == std::errc()) return number;
      uint64_t large = 0;
      if (std::from_chars(value.text.data(), end, large).ec == std::errc()) return large;
      return std::strtod(value.text.c_str(), nullptr);
    }
    case OrderedJson::Kind::Float:
      return value.number;
    case OrderedJson::Kind::String:
      return value.text;
    case OrderedJson::Kind::Array: {
      Tree list = Tree::array();
      for (const OrderedJson& item : value.items) list.push_back(convert<Tree>(item));
      return list;
    }
    case OrderedJson::Kind::Object: {
      Tree object = Tree::object();
      for (const auto& [name, member] : value.members) object[name] = convert<Tree>(member);
      return object;
    }
  }
  return nullptr;
}

}  // namespace

nlohmann::json to_json_tree(const OrderedJson& value) { return convert<nlohmann::json>(value); }

nlohmann::ordered_json to_ordered_tree(const OrderedJson& value) {
  return convert<nlohmann::ordered_json>(value);
}

namespace {

template <class Tree>
OrderedJson back(const Tree& value) {
  if (value.is_boolean()) return OrderedJson::of_bool(value.template get<bool>());
  if (value.is_number_integer()) return OrderedJson::of_integer(value.dump());
  if (value.is_number_float()) return OrderedJson::of_float(value.template get<double>());
  if (value.is_string()) return OrderedJson::of_string(value.template get<std::string>());
  OrderedJson out;
  if (value.is_array()) {
    out.kind = OrderedJson::Kind::Array;
    for (const Tree& item : value) out.items.push_back(back(item));
  } else if (value.is_object()) {
    out.kind = OrderedJson::Kind::Object;
    for (const auto& [name, member] : value.items()) out.members.emplace_back(name, back(member));
  }
  return out;
}

}  // namespace

OrderedJson from_tree(const nlohmann::json& value) { return back(value); }
OrderedJson from_tree(const nlohmann::ordered_json& value) { return back(value); }

}  // namespace quern
