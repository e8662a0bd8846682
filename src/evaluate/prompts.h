// The prompts of a benchmark, written out without a model.
#pragma once

#include <nlohmann/json.hpp>

#include "evaluate/item.h"

namespace quern {

// {"task","subset","split","index","id","prompt" or "messages","choices","target","stop",
// "max_new_tokens"}
nlohmann::ordered_json item_record(const Item& item);

}  // namespace quern
