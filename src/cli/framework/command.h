// How a command declares itself. Each option is declared once; parsing, the default and environment
// variable that --help shows, the place in a TOML file, completion, the man page and
// docs/commands.md all come from that.
//
// To add a command: write a file with `void add_<name>(CLI::App& root)` that makes a Command,
// declare it below, and add a row to the table in commands.cpp. A command of two words (`bench
// model`) is a Command whose parent is the app() of another.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "core/file.h"

// CLI11 is all headers and slow to compile: only what walks over all options includes it
// (app_tree.h), commands see no more than this.
namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace quern::cli {

// Options that every command has.
struct Globals {
  std::string progress = "auto";
  bool quiet = false;
  bool verbose = false;
  int threads = 0;
  bool show_config = false;
  std::string config;
};
const Globals& globals();

struct Example {
  std::string command;  // without the leading "quern "
  std::string purpose;
};

// A declared option, to say more of it. What is given and does not fit is Misused.
class Option {
 public:
  explicit Option(CLI::Option* option) noexcept : option_(option) {}

  Option required() const;
  Option usual() const;  // among the ten that -h shows
  // What the value is: for help, and for completion, which offers files and folders only where
  // these are meant.
  Option file() const;                           // FILE
  Option folder() const;                         // DIR
  Option path() const;                           // PATH: a file or a folder
  Option value(const std::string& shown) const;  // another word, as NAME or KEY=VALUE
  template <class T>
  Option range(T least, T most) const {
    if constexpr (std::is_floating_point_v<T>) {
      return between(double{least}, double{most});
    } else {
      return between(int64_t{least}, int64_t{most});
    }
  }
  Option one_of(const std::vector<std::string>& words) const;
  Option existing_file() const;
  // What is given is replaced by what `with` makes of it, which may throw.
  Option replaced(std::function<std::string(const std::string&)> with) const;
  Option size() const;                        // bytes, as 2048 or 2KB
  Option separated_by(char delimiter) const;  // a list in one word

 private:
  Option shown(const std::string& word) const;
  Option between(int64_t least, int64_t most) const;
  Option between(double least, double most) const;

  CLI::Option* option_;
};

class Command {
 public:
  Command(CLI::App& parent, const std::string& name, const std::string& description,
          const std::vector<Example>& examples = {});

  // An option "--name" (or "-n,--name") that sets `value`; what `value` holds now is the default.
  // One that holds nothing is shown as `absent`, which says what then happens. The end of
  // command.cpp lists the types that T may be.
  template <class T>
  Option option(const std::string& flags, T& value, const std::string& help,
                const std::string& absent = "none");
  Option flag(const std::string& flags, bool& value, const std::string& help);
  // An argument without a name on the command line; its variable and its key in a TOML file are
  // named like those of options.
  template <class T>
  Option positional(const std::string& name, T& value, const std::string& help);
  // Options declared from here on are listed under this heading.
  void group(const std::string& title) { group_ = title; }
  // Where `when` holds, options (or arguments) that have no use: the first of them that stands on the
  // command line is Misused, as "--lr goes with --steps" where the reason is "goes with --steps". What
  // a file or a variable sets is a default and waits for a run that uses it. Comes before on_run().
  void refuse(const std::vector<std::string>& options, const std::string& reason,
              std::function<bool()> when);
  // Names of the options that are listed under a heading so far.
  std::vector<std::string> names_under(const std::string& group) const;
  void on_run(std::function<void()> body);
  // What to say of an option that this command does not have: a hint, or nothing for the usual one.
  // It gets the name without dashes and the word behind it.
  void explain_unknown(
      std::function<std::string(const std::string& name, const std::string& value)>);
  CLI::App& app() { return *app_; }

 private:
  template <class T>
  Option finish(CLI::Option* option);

  CLI::App* app_;
  std::string group_ = "Options";
  std::vector<std::function<void()>> checks_;  // of refuse(), run before the body
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

// A prompt or a text that came through a pipe or a file, `quern ... < file`, where none is named:
// without its last line feed. Nothing where standard input is a terminal or a device.
std::optional<std::string> piped_input();

// Builds the whole program's parser; parses and runs. Returns the exit code.
void add_commands(CLI::App& root);
int run_program(int argc, char** argv);

void add_agent(CLI::App& root);
void add_bench(CLI::App& root);
void add_chat(CLI::App& root);
void add_compare(CLI::App& root);
void add_completion(CLI::App& root);
void add_convert(CLI::App& root);
void add_merge(CLI::App& root);
void add_data(CLI::App& root);
void add_decode(CLI::App& root);
void add_doctor(CLI::App& root);
void add_eval(CLI::App& root);
void add_generate(CLI::App& root);
void add_gradients(CLI::App& root);
void add_init(CLI::App& root);
void add_inspect(CLI::App& root);
void add_logits(CLI::App& root);
void add_man(CLI::App& root);
void add_metric(CLI::App& root);
void add_models(CLI::App& root);
void add_perplexity(CLI::App& root);
void add_plot(CLI::App& root);
void add_plan(CLI::App& root);
void add_pretrain(CLI::App& root);
void add_finetune(CLI::App& root);
void add_pull(CLI::App& root);
void add_quantize(CLI::App& root);
void add_sandbox(CLI::App& root);
void add_serve(CLI::App& root);
void add_tokenize(CLI::App& root);
void add_tokenizer(CLI::App& root);
void add_verify(CLI::App& root);

}  // namespace quern::cli
