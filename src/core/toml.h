// TOML files, read into the strict tree of core/json.h so that one set of checks serves both.
#pragma once

#include <string>
#include <string_view>

#include "core/json.h"

namespace quern {

// Throws BadInput with line and column. Dates become strings.
Json parse_toml(std::string_view text, std::string source);
Json parse_toml_file(const std::string& path);

}  // namespace quern
