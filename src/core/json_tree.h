// OrderedJson as nlohmann's trees and back, for libraries and code that want these.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "core/ordered_json.h"

namespace quern {

// As deep as `value` is: it came through a parser with a limit. Integers beyond 64 bits become
// doubles.
nlohmann::json to_json_tree(const OrderedJson& value);
nlohmann::ordered_json to_ordered_tree(const OrderedJson& value);

OrderedJson from_tree(const nlohmann::json& value);  // members sorted by key
OrderedJson from_tree(const nlohmann::ordered_json& value);

}  // namespace quern
