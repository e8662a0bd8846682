// Options from a TOML file: a table for each command ([generate], [bench.model]), its options by
// their long names; options of every command at the top.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "core/json.h"

namespace quern::cli {

class TomlConfig : public CLI::Config {
 public:
  explicit TomlConfig(const CLI::App& root) : root_(root) {}

  // Throws BadInput naming the file and the key that is not known, with the nearest that is. An
  // option whose environment variable is set is left out: the environment goes before the file.
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override;
  std::string to_config(const CLI::App*, bool, bool, std::string) const override { return {}; }

 private:
  const CLI::App& root_;
};

// ./quern.toml, else the user's own (quern/config.toml in $XDG_CONFIG_HOME or ~/.config); empty if
// there is none.
std::string default_config_file();

// Whether the option's environment variable is set.
bool from_environment(const CLI::Option& option);

}  // namespace quern::cli
