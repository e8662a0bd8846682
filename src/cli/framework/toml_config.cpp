#include "cli/framework/toml_config.h"

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cli/framework/app_tree.h"
#include "core/error.h"
#include "core/file.h"
#include "core/toml.h"

namespace quern::cli {
namespace {

[[noreturn]] void refuse(const Json& value, const std::string& problem,
                         const std::vector<std::string>& known, const std::string& name) {
  const std::string guess = nearest(name, known);
  value.fail(problem, guess.empty() ? "" : "did you mean '" + guess + "'?");
}

std::string text_of(const nlohmann::json& value) {
  return value.is_string() ? value.get<std::string>() : dump(value);
}

void read_table(const CLI::App& app, const std::vector<std::string>& parents, const Json& table,
                std::vector<CLI::ConfigItem>& settings) {
  for (const auto& [key, value] : table.members()) {
    std::vector<std::string> known;
    if (value.is_object()) {
      const CLI::App* below = nullptr;
      for (const CLI::App* command : commands_of(app)) {
        known.push_back(command->get_name());
        if (command->get_name() == key) below = command;
      }
      if (below == nullptr) refuse(value, "is a table for no command", known, key);
      std::vector<std::string> path = parents;
      path.push_back(key);
      read_table(*below, path, value, settings);
      continue;
    }
    const CLI::Option* found = nullptr;
    for (const CLI::Option* option : named_options(app)) {
      if (!option->get_configurable() || option->get_lnames().empty()) continue;
      known.push_back(option->get_lnames()[0]);
      if (known.back() == key) found = option;
    }
    if (found == nullptr) refuse(value, "is no option", known, key);
    if (from_environment(*found)) continue;
    CLI::ConfigItem item;
    item.parents = parents;
    item.name = key;
    if (value.is_array()) {
      for (const Json& part : value.items()) item.inputs.push_back(text_of(part.raw()));
    } else {
      item.inputs = {text_of(value.raw())};
    }
    settings.push_back(std::move(item));
  }
}

}  // namespace

std::vector<CLI::ConfigItem> TomlConfig::from_config(std::istream&) const {
  // By name instead of from the stream, for messages that say which file.
  const Json file = parse_toml_file(root_.get_config_ptr()->as<std::string>());
  std::vector<CLI::ConfigItem> settings;
  read_table(root_, {}, file, settings);
  return settings;
}

std::string default_config_file() {
  if (fs::exists("quern.toml")) return "quern.toml";
  const char* config = std::getenv("XDG_CONFIG_HOME");
  const char* home = std::getenv("HOME");
  fs::path folder;
  if (config != nullptr && *config != '\0') {
    folder = config;
  } else if (home != nullptr && *home != '\0') {
    folder = fs::path(home) / ".config";
  } else {
    return {};
  }
  const fs::path file = folder / "quern" / "config.toml";
  return fs::exists(file) ? file.string() : "";
}

bool from_environment(const CLI::Option& option) {
  return !option.get_envname().empty() && std::getenv(option.get_envname().c_str()) != nullptr;
}

}  // namespace quern::cli
