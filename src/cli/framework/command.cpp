#include "cli/framework/command.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <new>
#include <optional>
#include <regex>
#include <span>

#include "cli/framework/app_tree.h"
#include "cli/framework/command_line.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"

namespace quern::cli {
namespace {

Globals global_options;

// What Option::replaced found wrong with an argument.
std::optional<Error> deferred;

// "top-p   0.8   environment, QUERN_GENERATE_TOP_P" for each argument and option of a command, and
// of those above it.
void show_config(const CLI::App& app) {
  if (app.get_parent() != nullptr) show_config(*app.get_parent());
  for (const CLI::Option* option : app.get_options()) {
    const OptionFacts& about = facts(*option);
    if (!option->get_configurable()) continue;
    std::string value = default_text(*option), source = "default";
    if (option->count() > 0) {
      value = CLI::detail::join(option->results(), ", ");
      if (is_flag(*option)) value = value == "false" ? "off" : "on";
      source = about.origin == OptionFacts::Origin::CommandLine ? "command line"
               : about.origin == OptionFacts::Origin::Environment
                   ? "environment, " + about.place
                   : "configuration file, " + about.place.substr(0, about.place.rfind(": "));
    }
    const std::string name =
        option->get_lnames().empty() ? value_name(*option) : option->get_lnames()[0];
    print(fmt::format("{:<20} {:<24} {}\n", name, value, source));
  }
}

// Refuses a value, naming where it came from.
[[noreturn]] void refuse_value(const CLI::Option& option, const std::string& value,
                               const std::string& expected, const std::string& hint = {}) {
  const OptionFacts& about = facts(option);
  const bool file = about.origin == OptionFacts::Origin::File;
  std::string name = about.place.empty() ? option_names(option) : about.place;
  throw Error(file ? Kind::BadInput : Kind::Misused,
              fmt::format("{} is '{}', expected {}", name, printable(value, 60), expected), hint);
}

template <class T>
void check_number(const CLI::Option& option, const std::string& text) {
  T value{};
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const auto [end, failure] = std::from_chars(begin, text.data() + text.size(), value);
  const bool whole = end == text.data() + text.size() && begin != end;
  if constexpr (std::is_floating_point_v<T>) {
    if (!whole || failure != std::errc{} || !std::isfinite(value)) {
      refuse_value(option, text, "a number");
    }
  } else {
    if (!whole || failure == std::errc::invalid_argument) {
      refuse_value(
          option, text,
          std::is_unsigned_v<T> ? "a whole number that is not negative" : "a whole number");
    }
    if (failure != std::errc{}) refuse_value(option, text, "a smaller number");
  }
}

template <class T>
struct Element {
  using Type = T;
};
template <class T>
struct Element<std::vector<T>> {
  using Type = T;
};
template <class T>
struct Element<std::optional<T>> {
  using Type = T;
};

// Runs `check` on each value of an option, before CLI11 converts it.
void add_check(CLI::Option* option, std::function<void(const std::string&)> check) {
  option->check([check = std::move(check)](const std::string& value) {
    check(value);
    return std::string();
  });
}

void add_choice_check(CLI::Option* option) {
  add_check(option, [option](const std::string& text) {
    const auto& words = facts(*option).choices;
    if (std::find(words.begin(), words.end(), text) != words.end()) return;
    const std::string guess = nearest(text, words);
    const auto most = std::span(words).first(words.size() - 1);
    refuse_value(*option, text, fmt::format("{} or {}", fmt::join(most, ", "), words.back()),
                 guess.empty() ? "" : "did you mean " + guess + "?");
  });
}

void add_globals(CLI::App& root) {
  const auto global = [&](CLI::Option* option, std::vector<std::string> choices = {}) {
    facts(*option).variable = environment_name("", option->get_lnames()[0]);
    facts(*option).choices = std::move(choices);
    return option->group("Options of every command");
  };
  global(root.add_option("--progress", global_options.progress,
                         "Progress of long work: a bar (tty), lines (plain), JSON lines, or none")
             ->capture_default_str(),
         {"auto", "tty", "plain", "json", "none"});
  add_choice_check(root.get_option("--progress"));
  CLI::Option* threads =
      global(root.add_option("--threads", global_options.threads, "CPU threads; 0 = one per core")
                 ->capture_default_str());
  add_check(threads, [threads](const std::string& text) { check_number<int>(*threads, text); });
  Option(threads).range(0, 1024);
  global(root.add_flag("--quiet,-q", global_options.quiet, "Only errors on standard error")
             ->default_str("off"));
  global(root.add_flag("--verbose,-v", global_options.verbose, "More messages on standard error")
             ->default_str("off"));
  CLI::Option* show =
      root.add_flag("--show-config", global_options.show_config,
                    "Print every option's value and where it came from; run nothing")
          ->configurable(false)
          ->group("Options of every command");
  CLI::Option* config =
      global(
          root.add_option("--config", global_options.config,
                          "TOML file of options; else ./quern.toml or ~/.config/quern/config.toml"))
          ->configurable(false);
  facts(*show).variable.clear();
  facts(*config).value = "FILE";
  facts(*config).completes = OptionFacts::Completes::Files;
}

// What is left of CLI11's own errors: read_command_line() has found the usual ones.
Error usage_error(const CLI::ParseError& failure) {
  return Error(Kind::Misused, failure.what(), "see quern --help");
}

volatile std::sig_atomic_t interrupts_wanted = 0;

void on_interrupt(int) {
  if (interrupts_wanted != 0 && !interrupted.exchange(true)) return;
  ::_exit(static_cast<int>(Kind::Interrupted));
}

// The standard library's errors about files, as our own say them.
Error error_of(const fs::filesystem_error& failure) {
  errno = failure.code().value();
  try {
    throw_errno(failure.path1().string(), "cannot be used");
  } catch (const Error& error) {
    return error;
  }
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

template <class T>
Option Command::finish(CLI::Option* option) {
  const std::string name =
      option->get_lnames().empty() ? option->get_name(true) : option->get_lnames()[0];
  facts(*option).variable = environment_name(full_name(*app_), name);
  using Value = typename Element<T>::Type;
  if constexpr (std::is_arithmetic_v<Value> && !std::is_same_v<Value, bool>) {
    add_check(option, [option](const std::string& text) { check_number<Value>(*option, text); });
  }
  option->group(group_);
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
  return finish<T>(added->allow_extra_args(false));
}

Option Command::flag(const std::string& flags, bool& value, const std::string& help) {
  return finish<bool>(app_->add_flag(flags, value, help)->default_str(value ? "on" : "off"));
}

template <class T>
Option Command::positional(const std::string& name, T& value, const std::string& help) {
  CLI::Option* added = app_->add_option(name, value, help);
  facts(*added).completes = OptionFacts::Completes::Files;
  return finish<T>(added);
}

Option Option::required() const {
  facts(*option_).required = true;
  return *this;
}

Option Option::usual() const {
  facts(*option_).usual = true;
  return *this;
}

Option Option::file() const {
  facts(*option_).completes = OptionFacts::Completes::Files;
  return option_->get_positional() ? *this : shown("FILE");
}

Option Option::folder() const {
  facts(*option_).completes = OptionFacts::Completes::Folders;
  return option_->get_positional() ? *this : shown("DIR");
}

Option Option::path() const {
  facts(*option_).completes = OptionFacts::Completes::Files;
  return option_->get_positional() ? *this : shown("PATH");
}

Option Option::value(const std::string& word) const {
  facts(*option_).completes = OptionFacts::Completes::Nothing;
  return shown(word);
}

Option Option::shown(const std::string& word) const {
  facts(*option_).value = word;
  return *this;
}

Option Option::between(int64_t least, int64_t most) const {
  add_check(option_, [option = option_, least, most](const std::string& text) {
    const int64_t number = std::strtoll(text.c_str(), nullptr, 10);  // saturates
    if (number >= least && number <= most) return;
    refuse_value(*option, text, fmt::format("{} to {}", least, most));
  });
  return *this;
}

Option Option::between(double least, double most) const {
  add_check(option_, [option = option_, least, most](const std::string& text) {
    const double number = std::strtod(text.c_str(), nullptr);
    if (number >= least && number <= most) return;
    refuse_value(*option, text, fmt::format("{:g} to {:g}", least, most));
  });
  return *this;
}

Option Option::one_of(const std::vector<std::string>& words) const {
  facts(*option_).choices = words;
  facts(*option_).completes = OptionFacts::Completes::Nothing;
  add_choice_check(option_);
  return *this;
}

Option Option::existing_file() const {
  add_check(option_, [option = option_](const std::string& text) {
    std::error_code failure;
    if (fs::is_regular_file(text, failure)) return;
    const std::string name = facts(*option).place;
    throw_bad_input(fmt::format("{}: {}: there is no such file", name, printable(text)));
  });
  return file();
}

Option Option::replaced(std::function<std::string(const std::string&)> with) const {
  // What it finds wrong is said when the command runs: other arguments' faults come first, and
  // --show-config runs nothing.
  option_->transform([with = std::move(with)](const std::string& given) {
    try {
      return with(given);
    } catch (const Error& error) {
      if (!deferred) deferred = error;
      return given;
    }
  });
  return *this;
}

Option Option::size() const {
  option_->transform(CLI::AsSizeValue(false));
  // The latest transformation comes first: this one changes nothing.
  option_->transform([option = option_](std::string text) {
    static const std::regex bytes("[0-9]+ ?([kKmMgGtT]?[iI]?[bB])?");
    if (!std::regex_match(text, bytes)) {
      refuse_value(*option, text, "a number of bytes, as 2048, 500MB or 12GB");
    }
    return text;
  });
  return value("BYTES");
}

Option Option::separated_by(char delimiter) const {
  option_->delimiter(delimiter);
  return *this;
}

void Command::explain_unknown(
    std::function<std::string(const std::string& name, const std::string& value)> explain) {
  unknown_option(*app_) = std::move(explain);
}

void Command::refuse(const std::vector<std::string>& options, const std::string& reason,
                     std::function<bool()> when) {
  checks_.push_back([app = app_, options, reason, when = std::move(when)] {
    for (const std::string& name : options) {
      const CLI::Option& option = *app->get_option(name);
      if (facts(option).origin != OptionFacts::Origin::CommandLine || !when()) continue;
      const std::string shown = option.get_lnames().empty() ? value_name(option) : name;
      throw Error(Kind::Misused, shown + " " + reason);
    }
  });
}

std::vector<std::string> Command::names_under(const std::string& group) const {
  std::vector<std::string> out;
  for (const CLI::Option* option : named_options(*app_)) {
    if (option->get_group() == group) out.push_back("--" + option->get_lnames()[0]);
  }
  return out;
}

void Command::on_run(std::function<void()> body) {
  app_->callback([app = app_, body = std::move(body), checks = checks_] {
    const bool below = !app->get_subcommands().empty();  // the one that was named runs
    if (global_options.show_config || below) return;
    for (const auto& check : checks) check();
    if (deferred) throw Error(*deferred);
    body();
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

std::optional<std::string> piped_input() {
  struct stat info {};
  if (::fstat(STDIN_FILENO, &info) != 0) return std::nullopt;
  if (!S_ISFIFO(info.st_mode) && !S_ISREG(info.st_mode) && !S_ISSOCK(info.st_mode)) {
    return std::nullopt;
  }
  std::string text = read_input("-");
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
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
  root.require_subcommand(0, 1);  // later words are arguments, even if they name a command
  root.set_help_flag("-h,--help", "Print the usual options (-h) or everything (--help)")
      ->group("Options of every command");
  root.set_version_flag("--version", "quern " QUERN_VERSION, "Print the version")
      ->group("Options of every command");
  try {
    add_globals(root);
    add_commands(root);
    const CommandLine line = read_command_line(root, {argv + 1, argv + argc});
    switch (line.asks) {
      case CommandLine::Asks::ShortHelp:
        print(short_help(*line.command));
        flush_output();
        return 0;
      case CommandLine::Asks::WholeHelp:
        print(whole_help(*line.command));
        flush_output();
        return 0;
      case CommandLine::Asks::Version:
        print("quern " QUERN_VERSION "\n");
        flush_output();
        return 0;
      case CommandLine::Asks::Nothing:
        break;
    }
    root.parse_complete_callback([&] {
      set_progress_mode(global_options.quiet ? ProgressMode::None
                                             : *progress_mode_from_name(global_options.progress));
      log::set_level(global_options.quiet     ? log::Level::Error
                     : global_options.verbose ? log::Level::Debug
                                              : log::Level::Warning);
      for (const std::string& warning : unknown_variables(root)) log::warning(warning);
    });
    root.parse(std::vector<std::string>(line.words.rbegin(), line.words.rend()));
    if (line.show_config) show_config(*line.command);
    flush_output();
    return 0;
  } catch (const CLI::ParseError& failure) {
    return report(usage_error(failure));
  } catch (const Error& failure) {
    return report(failure);
  } catch (const fs::filesystem_error& failure) {
    return report(error_of(failure));
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
