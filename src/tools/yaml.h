// YAML of descriptions that people write, as JSON: what OpenAPI files are given in beside JSON.
#pragma once

#include <string>
#include <string_view>

#include "core/ordered_json.h"

namespace quern {

// One document, by YAML 1.2's core schema: plain true, null, 1 and 1.5 are values, anything in quotes
// is text. Throws BadInput naming `source` and the line for what is no YAML, for a key that is no text
// or stands twice, and for texts beyond the limits: 8 MB, 100 levels, a million values with what
// aliases repeat.
OrderedJson parse_yaml(std::string_view text, const std::string& source);

}  // namespace quern
