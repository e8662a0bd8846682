// What configurations of published checkpoints say and nothing here reads.
#pragma once

#include <string>
#include <vector>

#include "core/json.h"

namespace quern {

// A value that switches nothing on: null, false, an empty text, list or object.
bool is_off(const Json& value);

// Warns of keys that change nothing here, once for each file and list of keys; of none, nothing is
// said.
void warn_of_unread_keys(const std::string& where, const std::vector<std::string>& keys);

}  // namespace quern
