// Questions to the declared commands and options, for everything that describes them: help, man
// pages, completion, documentation, the configuration file.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace quern::cli {

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

// What stands for an option's value in help: "N", "TEXT"; empty for a flag.
std::string value_name(const CLI::Option& option);

// The words that an option takes, if it takes only certain ones.
std::vector<std::string> choices(const CLI::Option& option);

// What is used when nothing sets the option; empty for one that has to be set, and for one that
// only acts, such as --help.
std::string default_text(const CLI::Option& option);

// The variable "QUERN_BENCH_MODEL_PROMPT" of option "prompt" of command "bench model".
std::string environment_name(const std::string& command, const std::string& option);

// Makes what --help prints.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name,
                        CLI::AppFormatMode mode) const override;
};

}  // namespace quern::cli
