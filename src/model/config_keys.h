// Which keys of config.json mean something here.
#pragma once

#include "core/json.h"
#include "model/config.h"

namespace quern {

// Warns, once for each file and key, of keys that are neither read for the family nor known to be
// kept for the books alone by published models. What would change the result if it were true is
// refused: throws Unsupported naming it.
void warn_of_unread(const Json& json, const Config& config);

}  // namespace quern
