#include "cli/framework/toml_config.h"

#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cli/framework/app_tree.h"
#include "core/error.h"
#include "core/file.h"
#include "core/toml.h"

namespace quern::cli {
namespace {

class Reader {
 public:
  explicit Reader(const std::string& path)
      : path_(path), text_(read_file(path, size_t{16} << 20)), lines_(toml_lines(text_)) {}

  std::map<const CLI::Option*, TomlSetting> read(const CLI::App& root) {
    read_table(root, "", parse_toml(text_, path_));
    return std::move(settings_);
  }

 private:
  std::string place(const std::string& key) const {
    const auto line = lines_.find(key);
    return line == lines_.end()
               ? fmt::format("{}: {}", path_, printable(key))
               : fmt::format("{}: line {}: {}", path_, line->second, printable(key));
  }

  [[noreturn]] void refuse(const std::string& key, const char* problem,
                           const std::vector<std::string>& known, const std::string& name) const {
    const std::string guess = nearest(name, known);
    throw_bad_input(place(key) + problem, guess.empty() ? "" : "did you mean '" + guess + "'?");
  }

  void read_table(const CLI::App& app, const std::string& above, const Json& table) {
    for (const auto& [key, value] : table.members()) {
      const std::string path = above + key;
      if (value.is_object()) {
        read_section(app, path, key, value);
      } else {
        read_option(app, path, key, value);
      }
    }
  }

  void read_section(const CLI::App& app, const std::string& path, const std::string& key,
                    const Json& value) {
    std::vector<std::string> known;
    for (const CLI::App* command : commands_of(app)) {
      known.push_back(command->get_name());
      if (command->get_name() == key) return read_table(*command, path + ".", value);
    }
    refuse(path, " is an unknown section", known, key);
  }

  void read_option(const CLI::App& app, const std::string& path, const std::string& key,
                   const Json& value) {
    std::vector<std::string> known;
    bool found = false;
    for (const CLI::Option* option : app.get_options()) {
      if (!option->get_configurable()) continue;
      known.push_back(option->get_lnames().empty() ? option->get_name(true)
                                                   : option->get_lnames()[0]);
      if (known.back() != key) continue;
      found = true;
      TomlSetting& setting = settings_[option];
      setting.place = place(path);
      if (value.is_array()) {
        for (const Json& part : value.items()) setting.values.push_back(text_of(part));
      } else {
        setting.values = {text_of(value)};
      }
    }
    if (!found) refuse(path, " is an unknown option", known, key);
  }

  static std::string text_of(const Json& value) {
    return value.is_string() ? value.string() : dump(value.raw());
  }

  std::string path_, text_;
  std::map<std::string, int> lines_;  // of keys and tables, by their dotted names
  std::map<const CLI::Option*, TomlSetting> settings_;
};

}  // namespace

std::map<const CLI::Option*, TomlSetting> read_toml_config(const CLI::App& root,
                                                           const std::string& path) {
  return Reader(path).read(root);
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

}  // namespace quern::cli
