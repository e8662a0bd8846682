// What was typed: read before CLI11 parses it, so that every mistake is named for what it is, and
// joined with what environment variables and the configuration file set.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace quern::cli {

struct CommandLine {
  enum class Asks { Nothing, ShortHelp, WholeHelp, Version };

  const CLI::App* command = nullptr;  // the one that was named; the program itself for none
  Asks asks = Asks::Nothing;
  bool show_config = false;
  // For CLI11: what was typed, then what the chosen command's variables and file set beside it.
  std::vector<std::string> words;
};

// Finds the command, checks options and arguments against it, and notes in facts() where each value
// comes from: the command line goes before the environment, and it before the file. Throws Misused
// for what is not known, missing or too many, with the nearest that is known.
CommandLine read_command_line(const CLI::App& root, const std::vector<std::string>& words);

// Variables "QUERN_..." in the environment that nothing reads, each with the nearest that something
// does, as lines of a warning.
std::vector<std::string> unknown_variables(const CLI::App& root);

}  // namespace quern::cli
