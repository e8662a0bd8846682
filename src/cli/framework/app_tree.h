// Questions to the declared commands and options, for everything that describes them: help, man
// pages, completion, documentation, the configuration file.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

namespace quern::cli {

// What CLI11 does not keep of an option.
struct OptionFacts {
  enum class Completes { Nothing, Files, Folders };
  enum class Origin { Default, CommandLine, Environment, File };

  bool required = false;
  bool usual = false;                // shown by -h
  std::string variable;              // its environment variable; empty: it has none
  std::string value;                 // what stands for its value in help: "N", "FILE"
  std::vector<std::string> choices;  // the words that it takes, if only these
  Completes completes = Completes::Nothing;
  // Where the value that counts comes from, once the command line is read. `place` names it in
  // messages: "--top-p", "QUERN_GENERATE_TOP_P", "quern.toml: line 3: generate.top-p".
  Origin origin = Origin::Default;
  std::string place;
};
OptionFacts& facts(const CLI::Option& option);

// What to say of an option that a command does not have: given its name without dashes and the
// word behind it, a hint, or nothing.
using UnknownOption = std::function<std::string(const std::string& name, const std::string& value)>;
UnknownOption& unknown_option(const CLI::App& app);

// The commands right below `app`, in the order of declaration.
std::vector<const CLI::App*> commands_of(const CLI::App& app);
std::vector<CLI::App*> commands_of(CLI::App& app);

// Every command below `app`, each before its own; those of two words too.
std::vector<const CLI::App*> all_commands(const CLI::App& app);

// The words that name it, "bench model"; empty for the program itself.
std::string full_name(const CLI::App& app);

std::vector<const CLI::Option*> named_options(const CLI::App& app);
std::vector<const CLI::Option*> positionals(const CLI::App& app);

// Headings of named options in the order of declaration.
std::vector<std::string> option_groups(const CLI::App& app);

// "-n, --max-new-tokens", short names first.
std::string option_names(const CLI::Option& option);

bool is_flag(const CLI::Option& option);
bool is_list(const CLI::Option& option);

// What stands for an option's value in help: "N", "FILE"; empty for a flag. Of an argument it is
// its name: "MODEL", "FILES...".
std::string value_name(const CLI::Option& option);

// "quern generate MODEL [PROMPT] [options]".
std::string usage(const CLI::App& app);

// What is used when nothing sets the option; empty for one that has to be set, and for one that
// only acts, such as --help.
std::string default_text(const CLI::Option& option);

// The variable "QUERN_BENCH_MODEL_PROMPT" of option "prompt" of command "bench model".
std::string environment_name(const std::string& command, const std::string& option);

// What --help prints, and -h: the ten usual options and three examples.
std::string whole_help(const CLI::App& app);
std::string short_help(const CLI::App& app);

}  // namespace quern::cli
