// Options from a TOML file: a table for each command ([generate], [bench.model]), its options by
// their long names and its arguments by theirs; options of every command at the top.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

namespace quern::cli {

struct TomlSetting {
  std::vector<std::string> values;  // one, or those of a list
  std::string place;                // "quern.toml: line 3: generate.top-p"
};

// The settings in a file by their options. Throws BadInput naming file, line and the key that is
// not known, with the nearest one that is.
std::map<const CLI::Option*, TomlSetting> read_toml_config(const CLI::App& root,
                                                           const std::string& path);

// ./quern.toml, else the user's own (quern/config.toml in $XDG_CONFIG_HOME or ~/.config); empty if
// there is none.
std::string default_config_file();

}  // namespace quern::cli
