// What goes to the model, written out before any model is there.
#pragma once

#include <nlohmann/json.hpp>

#include "evaluate/item.h"

namespace quern {

// {"task","subset","split","index","id","prompt" or "messages","choices","target","stop",
// "max_new_tokens"}
nlohmann::ordered_json item_record(const Item& item);

}  // namespace quern
