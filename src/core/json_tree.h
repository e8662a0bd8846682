// OrderedJson as nlohmann's trees and back, for libraries and code that want these.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "core/ordered_json.h"

namespace quern {

// Recursive; the parser that made `value` limits its depth. Integers beyond 64 bits become
// doubles.
nlohmann::json to_json_tree(const OrderedJson& value);
nlohmann::ordered_json to_ordered_tree(const OrderedJson& value);

OrderedJson from_tree(const nlohmann::json& value);  // members sorted by key
OrderedJson from_tree(const nlohmann::ordered_json& value);

}  // namespace quern
