#include "cli/framework/command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <new>

#include "cli/framework/app_tree.h"
#include "cli/framework/toml_config.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"

namespace quern::cli {
namespace {

Globals global_options;

void add_globals(CLI::App& root) {
  const auto global = [&](CLI::Option* option) {
    return option->group("Options of every command")
        ->envname(environment_name("", option->get_lnames()[0]));
  };
  global(root.add_option("--progress", global_options.progress,
                         "How long work shows progress: auto, tty, plain, json or none")
             ->capture_default_str()
             ->check(CLI::IsMember({"auto", "tty", "plain", "json", "none"})));
  global(
      root.add_option("--threads", global_options.threads, "Threads to use; 0: one for each core")
          ->capture_default_str()
          ->check(CLI::Range(0, 1024)));
  global(root.add_flag("--quiet,-q", global_options.quiet, "Only errors on standard error")
             ->default_str("off"));
  global(root.add_flag("--verbose,-v", global_options.verbose, "Say more on standard error")
             ->default_str("off"));
  root.add_flag("--show-config", global_options.show_config,
                "Print every option's value and where it came from; run nothing")
      ->configurable(false)
      ->group("Options of every command");
  root.set_config("--config", default_config_file(),
                  "TOML file with options; else ./quern.toml or ~/.config/quern/config.toml")
      ->type_name("TEXT")
      ->group("Options of every command");
}

bool on_command_line(const CLI::Option& option, int argc, char** argv) {
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
}

// "top-p   0.8   environment, QUERN_GENERATE_TOP_P" for each option of what was asked for.
void show_config(const CLI::App& app, int argc, char** argv) {
  for (const CLI::Option* option : named_options(app)) {
    if (!option->get_configurable() || option->get_lnames().empty()) continue;
    std::string value = default_text(*option), source = "default";
    if (option->count() > 0) {
      value = CLI::detail::join(option->results(), ", ");
      if (value_name(*option).empty()) value = value == "false" ? "off" : "on";
      source = on_command_line(*option, argc, argv) ? "command line"
               : from_environment(*option)          ? "environment, " + option->get_envname()
                                                    : "configuration file";
    }
    print(fmt::format("{:<20} {:<24} {}\n", option->get_lnames()[0], value, source));
  }
  for (const CLI::App* command : app.get_subcommands()) show_config(*command, argc, argv);
}

// For --show-config, which looks at options without a model at hand.
void require_nothing(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) option->required(false);
  for (CLI::App* command : commands_of(app)) require_nothing(*command);
}

// The command that was named, as far as its words go.
const CLI::App& chosen(const CLI::App& app) {
  const auto below = app.get_subcommands();
  return below.empty() ? app : chosen(*below[0]);
}

// The message of CLI11's error in one line, with the nearest word for one that is not known.
Error usage_error(const CLI::App& root, const CLI::ParseError& failure) {
  const CLI::App& command = chosen(root);
  const std::string name = full_name(command);
  const std::string help = fmt::format("see quern {}--help", name.empty() ? "" : name + " ");
  std::string message = failure.what();
  if (dynamic_cast<const CLI::FileError*>(&failure) != nullptr) {
    return Error(Kind::BadInput, message);
  }
  if (dynamic_cast<const CLI::ExtrasError*>(&failure) == nullptr) {
    return Error(Kind::Misused, message, help);
  }
  // The word itself comes after the colon in CLI11's message.
  std::string word = message.substr(message.find(':') + 1);
  word = word.substr(0, word.find_first_of(" =", 1));
  word.erase(0, word.find_first_not_of(' '));
  std::vector<std::string> known;
  if (word.starts_with('-')) {
    for (const CLI::App* app = &command; app != nullptr; app = app->get_parent()) {
      for (const CLI::Option* option : named_options(*app)) {
        for (const std::string& long_name : option->get_lnames()) {
          known.push_back("--" + long_name);
        }
      }
    }
    message = "there is no option " + word;
  } else {
    for (const CLI::App* below : commands_of(command)) known.push_back(below->get_name());
    message = known.empty() ? "there is one argument too many: " + word
                            : fmt::format("there is no command '{}'", word);
  }
  const std::string guess = nearest(word, known);
  return Error(Kind::Misused, message, guess.empty() ? help : "did you mean " + guess + "?");
}

// CLI11 could ask for a command itself, but would then not say which word it did not know.
void require_command(const CLI::App& root) {
  const CLI::App& command = chosen(root);
  const auto below = commands_of(command);
  if (below.empty()) return;
  std::vector<std::string> names;
  for (const CLI::App* app : below) names.push_back(app->get_name());
  throw Error(
      Kind::Misused, fmt::format("name a command: {}", fmt::join(names, ", ")),
      fmt::format("quern {}--help says more", &command == &root ? "" : full_name(command) + " "));
}

volatile std::sig_atomic_t interrupts_wanted = 0;

void on_interrupt(int) {
  if (interrupts_wanted != 0 && !interrupted.exchange(true)) return;
  ::_exit(static_cast<int>(Kind::Interrupted));
}

int report(const Error& failure) {
  std::fflush(stdout);
  fmt::print(stderr, "quern: {}\n", failure.line());
  return failure.exit_code();
}

}  // namespace

std::atomic<bool> interrupted{false};

const Globals& globals() { return global_options; }

Command::Command(CLI::App& parent, const std::string& name, const std::string& description,
                 const std::vector<Example>& examples)
    : app_(parent.add_subcommand(name, description)) {
  std::string footer;
  for (const Example& example : examples) {
    footer += fmt::format("  quern {}\n      {}\n", example.command, example.purpose);
  }
  if (!footer.empty()) app_->footer("Examples:\n" + footer);
  app_->fallthrough();
  app_->require_subcommand(0, 1);
}

Option Command::finish(CLI::Option* option) {
  option->envname(environment_name(full_name(*app_), option->get_lnames()[0]))->group(group_);
  return Option(option);
}

template <class T>
Option Command::option(const std::string& flags, T& value, const std::string& help,
                       const std::string& absent) {
  CLI::Option* added = app_->add_option(flags, value, help);
  if constexpr (std::is_same_v<T, std::string>) {
    added->default_str(value.empty() ? absent : value);
  } else if constexpr (std::is_arithmetic_v<T>) {
    added->capture_default_str();
  } else {
    added->default_str(absent);
  }
  // A list takes one value each time it is named, so that it cannot swallow the arguments.
  return finish(added->allow_extra_args(false));
}

Option Command::flag(const std::string& flags, bool& value, const std::string& help) {
  return finish(app_->add_flag(flags, value, help)->default_str(value ? "on" : "off"));
}

template <class T>
Option Command::positional(const std::string& name, T& value, const std::string& help) {
  return Option(app_->add_option(name, value, help)->configurable(false));
}

Option Option::required() const {
  option_->required();
  return *this;
}

Option Option::between(int64_t least, int64_t most) const {
  option_->check(CLI::Range(least, most));
  return *this;
}

Option Option::between(double least, double most) const {
  option_->check(CLI::Range(least, most));
  return *this;
}

Option Option::one_of(const std::vector<std::string>& words) const {
  option_->check(CLI::IsMember(words));
  return *this;
}

Option Option::existing_file() const {
  option_->check(CLI::ExistingFile);
  return *this;
}

Option Option::replaced(std::function<std::string(const std::string&)> with) const {
  option_->transform([with = std::move(with)](const std::string& given) { return with(given); });
  return *this;
}

Option Option::size() const {
  option_->transform(CLI::AsSizeValue(false));
  return *this;
}

Option Option::separated_by(char delimiter) const {
  option_->delimiter(delimiter);
  return *this;
}

void Command::on_run(std::function<void()> body) {
  app_->callback([body = std::move(body)] {
    if (!global_options.show_config) body();
  });
}

std::optional<bool> parse_switch(const std::string& name, const std::string& value) {
  if (value.empty() || value == "auto") return std::nullopt;
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

void check_interrupted() {
  if (interrupted) throw Error(Kind::Interrupted, "interrupted");
}

void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) {
    throw_errno("standard output", "cannot write");
  }
}

void flush_output() {
  if (std::fflush(stdout) != 0) throw_errno("standard output", "cannot write");
}

std::string read_input(const std::string& path) {
  std::string text = path != "-" ? read_file(path, uint64_t{4} << 30)
                                 : std::string(std::istreambuf_iterator<char>(std::cin), {});
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);  // a byte order mark
  return text;
}

int run_program(int argc, char** argv) {
  install_sigbus_handler();
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
  std::signal(SIGPIPE, SIG_DFL);  // `quern ... | head` ends quietly

  CLI::App root("Quern: one program for everything that a language model's release needs.",
                "quern");
  root.formatter(std::make_shared<HelpFormatter>());
  root.require_subcommand(0, 1);  // later words are arguments, even if they name a command
  root.set_help_flag("--help,-h", "Print this help");
  root.set_version_flag("--version", "quern " QUERN_VERSION)->group("Options of every command");
  try {
    add_globals(root);
    root.get_help_ptr()->group("Options of every command");
    add_commands(root);
    root.config_formatter(std::make_shared<TomlConfig>(root));
    root.parse_complete_callback([&] {
      set_progress_mode(global_options.quiet ? ProgressMode::None
                                             : *progress_mode_from_name(global_options.progress));
      log::set_level(global_options.quiet     ? log::Level::Error
                     : global_options.verbose ? log::Level::Debug
                                              : log::Level::Warning);
      require_command(root);
    });
    const bool show = std::find_if(argv, argv + argc, [](std::string_view argument) {
                        return argument == "--show-config";
                      }) != argv + argc;
    if (show) require_nothing(root);
    root.parse(argc, argv);
    if (show) show_config(root, argc, argv);
    flush_output();
    return 0;
  } catch (const CLI::Success& help) {
    return root.exit(help);
  } catch (const CLI::ParseError& failure) {
    return report(usage_error(root, failure));
  } catch (const Error& failure) {
    return report(failure);
  } catch (const std::bad_alloc&) {
    return report(Error(Kind::NoResources, "out of memory"));
  } catch (const std::exception& failure) {
    return report(Error(Kind::Failed, failure.what()));
  }
}

// The types of options and of arguments.
#define QUERN_OPTION_TYPE(T)                                                     \
  template Option Command::option<T>(const std::string&, T&, const std::string&, \
                                     const std::string&);                        \
  template Option Command::positional<T>(const std::string&, T&, const std::string&)
QUERN_OPTION_TYPE(std::string);
QUERN_OPTION_TYPE(int);
QUERN_OPTION_TYPE(int64_t);
QUERN_OPTION_TYPE(uint64_t);
QUERN_OPTION_TYPE(double);
QUERN_OPTION_TYPE(std::vector<std::string>);
QUERN_OPTION_TYPE(std::vector<int64_t>);
QUERN_OPTION_TYPE(std::optional<std::string>);
QUERN_OPTION_TYPE(std::optional<double>);
QUERN_OPTION_TYPE(std::optional<int64_t>);
QUERN_OPTION_TYPE(std::optional<uint64_t>);
#undef QUERN_OPTION_TYPE

}  // namespace quern::cli
