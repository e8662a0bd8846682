#include "cli/command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cctype>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <new>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/toml.h"

namespace quern::cli {
namespace {

Globals global_options;

std::string environment_name(const std::string& command, const std::string& option) {
  std::string name = "QUERN_" + (command.empty() ? "" : command + "_") + option;
  for (char& c : name) {
    c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

bool from_environment(const CLI::Option& option) {
  return !option.get_envname().empty() && std::getenv(option.get_envname().c_str()) != nullptr;
}

std::string text_of(const nlohmann::json& value) {
  return value.is_string() ? value.get<std::string>() : dump(value);
}

// Configuration files in TOML: a table for each command, its options by their long names; global
// options at the top. The environment goes before the file, as the command line goes before both.
class TomlConfig : public CLI::Config {
 public:
  explicit TomlConfig(const CLI::App& root) : root_(root) {}

  std::string to_config(const CLI::App*, bool, bool, std::string) const override { return {}; }

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    const std::string text(std::istreambuf_iterator<char>(input), {});
    const Json file = parse_toml(text, "configuration file");
    std::vector<CLI::ConfigItem> settings;
    for (const auto& [key, value] : file.members()) {
      if (!value.is_object()) {
        add(root_, "", key, value, settings);
        continue;
      }
      const auto commands = root_.get_subcommands([](const CLI::App*) { return true; });
      const auto command = std::find_if(commands.begin(), commands.end(), [&](const CLI::App* app) {
        return app->get_name() == key;
      });
      if (command == commands.end()) {
        std::vector<std::string> names;
        for (const CLI::App* app : commands) names.push_back(app->get_name());
        refuse(value, "is a table for no command", nearest(key, names));
      }
      for (const auto& [name, setting] : value.members()) add(**command, key, name, setting, settings);
    }
    return settings;
  }

 private:
  [[noreturn]] static void refuse(const Json& value, const std::string& problem,
                                  const std::string& guess) {
    value.fail(problem, guess.empty() ? "" : "did you mean '" + guess + "'?");
  }
  static void add(const CLI::App& app, const std::string& command, const std::string& name,
                  const Json& value, std::vector<CLI::ConfigItem>& settings) {
    const CLI::Option* option = app.get_option_no_throw("--" + name);
    if (option == nullptr || !option->get_configurable()) {
      std::vector<std::string> names;
      for (const CLI::Option* known : app.get_options()) {
        if (known->get_configurable() && !known->get_lnames().empty()) {
          names.push_back(known->get_lnames()[0]);
        }
      }
      refuse(value, "is no option", nearest(name, names));
    }
    if (from_environment(*option)) return;
    CLI::ConfigItem item;
    if (!command.empty()) item.parents = {command};
    item.name = name;
    if (value.is_array()) {
      for (const Json& part : value.items()) item.inputs.push_back(text_of(part.raw()));
    } else {
      item.inputs = {text_of(value.raw())};
    }
    settings.push_back(std::move(item));
  }

  const CLI::App& root_;
};

std::string default_config_file() {
  if (fs::exists("quern.toml")) return "quern.toml";
  const char* home = std::getenv("XDG_CONFIG_HOME");
  const char* user = std::getenv("HOME");
  const fs::path folder = home != nullptr && *home != '\0' ? fs::path(home)
                          : user != nullptr                ? fs::path(user) / ".config"
                                                           : fs::path();
  const fs::path file = folder / "quern" / "config.toml";
  return !folder.empty() && fs::exists(file) ? file.string() : "";
}

void add_globals(CLI::App& root) {
  const auto global = [&](CLI::Option* option) {
    option->group("Global options");
    if (option->get_configurable()) option->envname(environment_name("", option->get_lnames()[0]));
  };
  global(root.add_option("--progress", global_options.progress,
                         "How long work shows progress: auto, tty, plain, json or none")
             ->capture_default_str()
             ->check(CLI::IsMember({"auto", "tty", "plain", "json", "none"})));
  global(
      root.add_option("--threads", global_options.threads, "Threads to use; 0: one for each core")
          ->capture_default_str()
          ->check(CLI::Range(0, 1024)));
  global(root.add_flag("--quiet,-q", global_options.quiet, "Only errors on standard error"));
  global(root.add_flag("--verbose,-v", global_options.verbose, "Say more on standard error"));
  global(root.add_flag("--show-config", global_options.show_config,
                       "Print every option's value and where it came from, and do nothing else")
             ->configurable(false));
  root.set_config("--config", default_config_file(),
                  "TOML file with options; else ./quern.toml or ~/.config/quern/config.toml")
      ->group("Global options");
}

// "--top-p = 0.8   (environment, QUERN_GENERATE_TOP_P)" for each option of what was asked for.
void show_config(const CLI::App& root, int argc, char** argv) {
  const auto on_command_line = [&](const CLI::Option& option) {
    for (int i = 1; i < argc; ++i) {
      const std::string argument = argv[i];
      for (const std::string& name : option.get_lnames()) {
        if (argument == "--" + name || argument.starts_with("--" + name + "=")) return true;
      }
      for (const std::string& name : option.get_snames()) {
        if (argument.starts_with("-" + name)) return true;
      }
    }
    return false;
  };
  const auto show = [&](const CLI::App& app) {
    for (const CLI::Option* option : app.get_options()) {
      if (!option->get_configurable() || option->get_lnames().empty()) continue;
      std::string value = option->get_default_str(), source = "default";
      if (option->count() > 0) {
        value = CLI::detail::join(option->results(), ", ");
        source = on_command_line(*option)    ? "command line"
                 : from_environment(*option) ? "environment, " + option->get_envname()
                                             : "configuration file";
      }
      print(fmt::format("{:<24} {:<20} {}\n", option->get_lnames()[0], value, source));
    }
  };
  show(root);
  for (const CLI::App* command : root.get_subcommands()) show(*command);
}

// The message of CLI11's error in one line, with the nearest option for one that is not known.
std::string usage_error(const CLI::App& root, const CLI::ParseError& failure) {
  std::string message = failure.what();
  if (dynamic_cast<const CLI::ExtrasError*>(&failure) == nullptr) return message;
  const auto chosen = root.get_subcommands();
  std::vector<std::string> names;
  const auto collect = [&](const CLI::App& app) {
    for (const CLI::Option* option : app.get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  };
  collect(root);
  for (const CLI::App* app : chosen) collect(*app);
  if (chosen.empty()) {
    for (const CLI::App* app : root.get_subcommands([](const CLI::App*) { return true; })) {
      names.push_back(app->get_name());
    }
  }
  const std::string word = message.substr(
      message.find(':') == message.npos ? 0
                                        : message.find_first_not_of(' ', message.find(':') + 1));
  const std::string guess = nearest(word.substr(0, word.find_first_of(" =")), names);
  if (!guess.empty()) message += " (did you mean " + guess + "?)";
  return message;
}

volatile std::sig_atomic_t interrupts_wanted = 0;

void on_interrupt(int) {
  if (interrupts_wanted != 0 && !interrupted.exchange(true)) return;
  ::_exit(static_cast<int>(Kind::Interrupted));
}

int report(const std::string& line, int code) {
  std::fflush(stdout);
  fmt::print(stderr, "quern: {}\n", line);
  return code;
}

}  // namespace

std::atomic<bool> interrupted{false};

const Globals& globals() { return global_options; }

Command::Command(CLI::App& root, const std::string& name, const std::string& description,
                 const std::vector<Example>& examples)
    : app_(root.add_subcommand(name, description)) {
  std::string footer = "Examples:\n";
  for (const Example& example : examples) {
    footer += fmt::format("  quern {}\n      {}\n", example.command, example.purpose);
  }
  app_->footer(footer);
  app_->fallthrough();
}

CLI::Option* Command::finish(CLI::Option* option) {
  return option->envname(environment_name(app_->get_name(), option->get_lnames()[0]))
      ->group(group_);
}

std::optional<bool> parse_switch(const std::string& name, const std::string& value) {
  if (value.empty()) return std::nullopt;
  if (value == "on") return true;
  if (value == "off") return false;
  throw Error(Kind::Misused,
              fmt::format("{} is '{}', expected on or off", name, printable(value, 40)));
}

InterruptScope::InterruptScope() {
  interrupted = false;
  interrupts_wanted = 1;
}

InterruptScope::~InterruptScope() { interrupts_wanted = 0; }

void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) {
    throw_errno("standard output", "cannot write");
  }
}

void flush_output() {
  if (std::fflush(stdout) != 0) throw_errno("standard output", "cannot write");
}

std::string read_input(const std::string& path) {
  if (path != "-") return read_file(path, uint64_t{4} << 30);
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

int run_program(int argc, char** argv) {
  install_sigbus_handler();
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
  std::signal(SIGPIPE, SIG_DFL);

  CLI::App root("Quern: one program for everything that a language model's release needs.",
                "quern");
  root.set_version_flag("--version", "quern " QUERN_VERSION)->group("Global options");
  root.set_help_flag("--help,-h", "Print this help")->group("Global options");
  root.require_subcommand(1);
  root.get_formatter()->column_width(34);
  try {
    add_globals(root);
    add_commands(root);
    root.config_formatter(std::make_shared<TomlConfig>(root));
    root.parse_complete_callback([&] {
      set_progress_mode(global_options.quiet ? ProgressMode::None
                                             : *progress_mode_from_name(global_options.progress));
      log::set_level(global_options.quiet     ? log::Level::Error
                     : global_options.verbose ? log::Level::Debug
                                              : log::Level::Warning);
    });
    if (std::find_if(argv, argv + argc, [](const char* a) {
          return std::string_view(a) == "--show-config";
        }) != argv + argc) {
      // The command's own callback must not run: only its options are looked at.
      for (CLI::App* app : root.get_subcommands([](CLI::App*) { return true; })) {
        app->callback([] {});
        for (CLI::Option* option : app->get_options()) option->required(false);
      }
      root.parse(argc, argv);
      show_config(root, argc, argv);
    } else {
      root.parse(argc, argv);
    }
    flush_output();
    return 0;
  } catch (const CLI::Success& help) {
    return root.exit(help);
  } catch (const CLI::ParseError& failure) {
    return report(usage_error(root, failure), static_cast<int>(Kind::Misused));
  } catch (const Error& failure) {
    return report(failure.line(), failure.exit_code());
  } catch (const std::bad_alloc&) {
    return report("out of memory", static_cast<int>(Kind::NoResources));
  } catch (const std::exception& failure) {
    return report(printable(failure.what(), 1000), static_cast<int>(Kind::Failed));
  }
}

}  // namespace quern::cli
