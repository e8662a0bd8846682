// TOML files, read into the strict tree of core/json.h so that one set of checks serves both.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "core/json.h"

namespace quern {

// Throws BadInput with line and column. Dates become strings.
Json parse_toml(std::string_view text, std::string source);
Json parse_toml_file(const std::string& path);

// The line of each key and table of a text that parse_toml() accepts, by its dotted name
// ("generate.top-p"): for messages about single values.
std::map<std::string, int> toml_lines(std::string_view text);

}  // namespace quern
