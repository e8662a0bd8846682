// How a command declares itself. Each option is declared once; parsing, the default and environment
// variable that --help shows, the place in a TOML file, completion, the man page and
// docs/commands.md all come from that.
//
// To add a command: write a file with `void add_<name>(CLI::App& root)` that makes a Command,
// declare it below, and add a row to the table in commands.cpp. A command of two words (`bench
// model`) is a Command whose parent is the app() of another.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "core/file.h"

namespace quern::cli {

// Options that every command has.
struct Globals {
  std::string progress = "auto";
  bool quiet = false;
  bool verbose = false;
  int threads = 0;
  bool show_config = false;
};
const Globals& globals();

struct Example {
  std::string command;  // without the leading "quern "
  std::string purpose;
};

class Command {
 public:
  Command(CLI::App& parent, const std::string& name, const std::string& description,
          const std::vector<Example>& examples = {});

  // An option "--name" (or "-n,--name") that sets `value`; what `value` holds now is the default.
  // One that holds nothing is shown as `absent`, which says what then happens.
  template <class T>
  CLI::Option* option(const std::string& flags, T& value, const std::string& help,
                      const std::string& absent = "none") {
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
  CLI::Option* flag(const std::string& flags, bool& value, const std::string& help) {
    return finish(app_->add_flag(flags, value, help)->default_str(value ? "on" : "off"));
  }
  // An argument without a name on the command line. It has no environment variable.
  template <class T>
  CLI::Option* positional(const std::string& name, T& value, const std::string& help) {
    return app_->add_option(name, value, help)->configurable(false);
  }
  // Options declared from here on are listed under this heading.
  void group(const std::string& title) { group_ = title; }
  void on_run(std::function<void()> body);
  CLI::App& app() { return *app_; }

 private:
  CLI::Option* finish(CLI::Option* option);

  CLI::App* app_;
  std::string group_ = "Options";
};

// "on" and "off"; "auto" or nothing is absence. Throws Misused for another word.
std::optional<bool> parse_switch(const std::string& name, const std::string& value);

// Set while SIGINT is to end what runs now, not the program: see InterruptScope.
extern std::atomic<bool> interrupted;

// While it lives, the first Ctrl-C sets `interrupted`; a second one ends the program.
class InterruptScope {
 public:
  InterruptScope();
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;
};

// Throws Interrupted after a Ctrl-C in an InterruptScope: for work that has something to tidy up.
void check_interrupted();

// Standard output for results; throws where it cannot be written to (a full disk).
void print(std::string_view text);
void flush_output();

// All of a file, or of standard input for "-".
std::string read_input(const std::string& path);

// Builds the whole program's parser; parses and runs. Returns the exit code.
void add_commands(CLI::App& root);
int run_program(int argc, char** argv);

void add_bench(CLI::App& root);
void add_chat(CLI::App& root);
void add_compare(CLI::App& root);
void add_completion(CLI::App& root);
void add_convert(CLI::App& root);
void add_data(CLI::App& root);
void add_doctor(CLI::App& root);
void add_generate(CLI::App& root);
void add_gradients(CLI::App& root);
void add_init(CLI::App& root);
void add_inspect(CLI::App& root);
void add_logits(CLI::App& root);
void add_man(CLI::App& root);
void add_perplexity(CLI::App& root);
void add_plot(CLI::App& root);
void add_pretrain(CLI::App& root);
void add_quantize(CLI::App& root);
void add_serve(CLI::App& root);
void add_tokenize(CLI::App& root);
void add_tokenizer(CLI::App& root);
void add_verify(CLI::App& root);

}  // namespace quern::cli
