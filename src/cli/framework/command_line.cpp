#include "cli/framework/command_line.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>

#include "cli/framework/app_tree.h"
#include "cli/framework/toml_config.h"
#include "core/error.h"
#include "core/file.h"

namespace quern::cli {
namespace {

using Origin = OptionFacts::Origin;

// Words that users of other programs type, and what they mean here.
struct Habit {
  std::string_view word, hint;
};
constexpr Habit kHabits[] = {
    {"run", "quern chat MODEL talks with a model, quern generate MODEL PROMPT continues a text"},
    {"train",
     "quern pretrain RUN.toml trains a model, quern finetune RUN.toml tunes one, quern tokenizer "
     "train FILES makes a vocabulary"},
    {"list", "quern models lists those that are here, quern inspect MODEL describes one"},
    {"ls", "quern models lists those that are here, quern inspect MODEL describes one"},
    {"ps", "a server lists what it serves at /v1/models and what runs at /metrics"},
    {"stop", "Ctrl-C or SIGTERM ends quern serve once answers under way are finished"},
    {"show", "quern inspect MODEL describes a checkpoint"},
    {"info", "quern inspect MODEL describes a checkpoint, quern doctor the machine"},
    {"encode", "quern tokenize MODEL TEXT"},
    {"detokenize", "quern decode MODEL ID... turns ids into text"},
    {"ppl", "quern perplexity MODEL FILE"},
    {"benchmark", "quern bench model MODEL"},
    {"server", "quern serve MODEL"},
    {"merge-lora", "quern merge MODEL ADAPTER OUT"},
};

std::string see_help(const CLI::App& app) {
  const std::string name = full_name(app);
  return fmt::format("see quern {}--help", name.empty() ? "" : name + " ");
}

const CLI::App* command_named(const CLI::App& app, std::string_view word) {
  for (const CLI::App* command : commands_of(app)) {
    if (command->get_name() == word) return command;
  }
  return nullptr;
}

// "--name" or "-n" among the options of a command and of those above it.
const CLI::Option* option_named(const CLI::App* app, std::string_view flag) {
  const bool longer = flag.starts_with("--");
  const std::string_view name = flag.substr(longer ? 2 : 1);
  for (; app != nullptr; app = app->get_parent()) {
    for (const CLI::Option* option : named_options(*app)) {
      const auto& names = longer ? option->get_lnames() : option->get_snames();
      if (std::find(names.begin(), names.end(), name) != names.end()) return option;
    }
  }
  return nullptr;
}

std::string variable_of(const CLI::Option& option) {
  const std::string& name = facts(option).variable;
  const char* value = name.empty() ? nullptr : std::getenv(name.c_str());
  return value != nullptr ? value : "";
}

class Reader {
 public:
  Reader(const CLI::App& root, const std::vector<std::string>& words)
      : root_(root), words_(words), app_(&root) {}

  CommandLine read() {
    read_words();
    out_.command = app_;
    if (out_.asks != CommandLine::Asks::Nothing) return std::move(out_);
    require_command();
    add_settings();
    if (!out_.show_config) require_all();
    out_.words = options_;
    if (!arguments_.empty()) out_.words.push_back("--");
    out_.words.insert(out_.words.end(), arguments_.begin(), arguments_.end());
    return std::move(out_);
  }

 private:
  void read_words() {
    bool options = true;  // until "--"
    for (at_ = 0; at_ < words_.size(); ++at_) {
      const std::string& word = words_[at_];
      if (options && word == "--") {
        options = false;
      } else if (options && word.starts_with("--")) {
        read_long(word);
      } else if (options && word.size() > 1 && word[0] == '-') {
        read_short(word);
      } else {
        read_argument(word);
      }
    }
  }

  bool asks_help() const {
    return out_.asks == CommandLine::Asks::ShortHelp || out_.asks == CommandLine::Asks::WholeHelp;
  }

  void read_long(const std::string& word) {
    const size_t equals = word.find('=');
    const std::string flag = word.substr(0, equals);
    if (flag == "--help") out_.asks = CommandLine::Asks::WholeHelp;
    if (flag == "--version") out_.asks = CommandLine::Asks::Version;
    if (flag == "--show-config") out_.show_config = true;
    const CLI::Option* option = option_named(app_, flag);
    if (option == nullptr) {
      if (asks_help()) return;
      refuse_option(flag, equals == word.npos ? next_word() : word.substr(equals + 1));
    }
    if (is_flag(*option)) {
      note(*option, flag);
      options_.push_back(
          equals == word.npos
              ? flag
              : fmt::format("{}={}", flag, flag_value(word.substr(equals + 1), flag)));
      return;
    }
    take_value(*option, flag,
               equals == word.npos ? std::nullopt : std::optional(word.substr(equals + 1)));
  }

  // Letters after one dash: flags, and at most one option whose value is the rest or the next word.
  void read_short(const std::string& word) {
    for (size_t i = 1; i < word.size(); ++i) {
      const std::string flag = {'-', word[i]};
      if (flag == "-h") {
        out_.asks = CommandLine::Asks::ShortHelp;
        continue;
      }
      const CLI::Option* option = option_named(app_, flag);
      if (option == nullptr) {
        if (asks_help()) return;
        refuse_option(i == 1 ? word.substr(0, word.find('=')) : flag, next_word());
      }
      if (is_flag(*option)) {
        note(*option, flag);
        options_.push_back(flag);
        continue;
      }
      const std::string rest = word.substr(i + 1);
      take_value(*option, flag, rest.empty() ? std::nullopt : std::optional(rest));
      return;
    }
  }

  void take_value(const CLI::Option& option, const std::string& flag,
                  std::optional<std::string> value) {
    if (!value) {
      if (at_ + 1 >= words_.size()) {
        if (asks_help()) return;
        throw Error(Kind::Misused, fmt::format("{} needs a value, {}", flag, value_name(option)),
                    see_help(*app_));
      }
      value = words_[++at_];
    }
    note(option, flag);
    if (&option == option_named(&root_, "--config")) config_ = *value;
    options_.push_back(flag);
    options_.push_back(*value);
  }

  static void note(const CLI::Option& option, const std::string& flag) {
    facts(option).origin = Origin::CommandLine;
    facts(option).place = flag;
  }

  void read_argument(const std::string& word) {
    // A command that takes arguments itself may have others below it, which come first.
    if (!commands_of(*app_).empty() && arguments_.empty()) {
      if (const CLI::App* below = command_named(*app_, word)) {
        app_ = below;
        options_.push_back(word);
        return;
      }
      if (app_ == &root_ && word == "help") {
        out_.asks = CommandLine::Asks::WholeHelp;
        return;
      }
      if (app_ == &root_ && word == "version") {
        out_.asks = CommandLine::Asks::Version;
        return;
      }
      if (positionals(*app_).empty()) refuse_command(word);
    }
    const auto all = positionals(*app_);
    const bool list = !all.empty() && is_list(*all.back());
    if (arguments_.size() >= all.size() && !list) {
      if (asks_help()) return;
      const bool text = !all.empty() && arguments_.size() >= 2;
      throw Error(Kind::Misused, "there is one argument too many: " + word,
                  text ? fmt::format("{}; a text of several words goes in quotes", usage(*app_))
                       : see_help(*app_));
    }
    const CLI::Option& argument = *all[std::min(arguments_.size(), all.size() - 1)];
    note(argument, value_name(argument));
    arguments_.push_back(word);
  }

  std::string next_word() const { return at_ + 1 < words_.size() ? words_[at_ + 1] : ""; }

  [[noreturn]] void refuse_command(const std::string& word) const {
    std::vector<std::string> known;
    for (const CLI::App* below : commands_of(*app_)) known.push_back(below->get_name());
    std::string hint;
    for (const Habit& habit : kHabits) {
      if (app_ == &root_ && habit.word == word) hint = habit.hint;
    }
    if (hint.empty()) {
      const std::string guess = nearest(word, known);
      hint = guess.empty() ? see_help(*app_) : "did you mean " + guess + "?";
    }
    throw Error(Kind::Misused, fmt::format("there is no command '{}'", printable(word, 40)), hint);
  }

  [[noreturn]] void refuse_option(const std::string& flag, const std::string& value) const {
    // One of a command that is named only later.
    for (const CLI::App* below : all_commands(*app_)) {
      const CLI::Option* option = option_named(below, flag);
      if (option == nullptr) continue;
      const CLI::App* named = nullptr;
      for (size_t i = at_ + 1; i < words_.size() && named == nullptr; ++i) {
        named = command_named(*app_, words_[i]);
      }
      throw Error(
          Kind::Misused, fmt::format("put {} after the command", flag),
          fmt::format("quern {} {}", named != nullptr ? full_name(*named) : "COMMAND", flag));
    }
    std::string hint;
    if (const UnknownOption& explain = unknown_option(*app_); explain) {
      hint = explain(flag.substr(std::min(flag.find_first_not_of('-'), flag.size())), value);
    }
    if (hint.empty()) {
      std::vector<std::string> known;
      for (const CLI::App* app = app_; app != nullptr; app = app->get_parent()) {
        for (const CLI::Option* option : named_options(*app)) {
          for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
        }
      }
      const std::string guess = flag.starts_with("--") ? nearest(flag, known) : "";
      hint = guess.empty() ? see_help(*app_) : "did you mean " + guess + "?";
    }
    throw Error(Kind::Misused, "there is no option " + printable(flag, 60), hint);
  }

  void require_command() const {
    const auto below = commands_of(*app_);
    if (below.empty() || !positionals(*app_).empty()) return;
    std::vector<std::string> names;
    for (const CLI::App* command : below) names.push_back(command->get_name());
    throw Error(
        Kind::Misused, fmt::format("name a command: {}", fmt::join(names, ", ")),
        fmt::format("quern {}--help says more", app_ == &root_ ? "" : full_name(*app_) + " "));
  }

  // Environment and file, for what was not typed.
  void add_settings() {
    const std::string file = !config_.empty() ? config_ : default_config_file();
    std::map<const CLI::Option*, TomlSetting> in_file;
    if (!file.empty()) in_file = read_toml_config(root_, file);
    for (const CLI::App* app = app_; app != nullptr; app = app->get_parent()) {
      for (const CLI::Option* option : named_options(*app)) {
        for (const std::string& value : setting(*option, in_file)) {
          const std::string flag = "--" + option->get_lnames()[0];
          options_.push_back(fmt::format(
              "{}={}", flag, is_flag(*option) ? flag_value(value, facts(*option).place) : value));
        }
      }
    }
    const auto all = positionals(*app_);
    for (size_t i = arguments_.size(); i < all.size(); ++i) {
      const std::vector<std::string> values = setting(*all[i], in_file);
      // Arguments go by their order: where one is missing the next cannot follow.
      if (values.empty()) break;
      arguments_.insert(arguments_.end(), values.begin(), values.end());
    }
  }

  static std::vector<std::string> setting(const CLI::Option& option,
                                          const std::map<const CLI::Option*, TomlSetting>& file) {
    OptionFacts& about = facts(option);
    if (about.origin != Origin::Default) return {};
    if (const std::string value = variable_of(option); !value.empty()) {
      about.origin = Origin::Environment;
      about.place = about.variable;
      return {value};
    }
    const auto found = file.find(&option);
    if (found == file.end()) return {};
    about.origin = Origin::File;
    about.place = found->second.place;
    return found->second.values;
  }

  static const char* flag_value(const std::string& value, const std::string& place) {
    for (const char* word : {"on", "true", "yes", "1"}) {
      if (value == word) return "true";
    }
    for (const char* word : {"off", "false", "no", "0"}) {
      if (value == word) return "false";
    }
    const bool file = place.find(": ") != std::string::npos;
    throw Error(file ? Kind::BadInput : Kind::Misused,
                fmt::format("{} is '{}', expected on or off", place, printable(value, 40)));
  }

  void require_all() const {
    const auto all = positionals(*app_);
    for (size_t i = arguments_.size(); i < all.size(); ++i) {
      if (!facts(*all[i]).required) continue;
      throw Error(Kind::Misused, value_name(*all[i]) + " is missing",
                  fmt::format("{}; --help says more", usage(*app_)));
    }
    for (const CLI::Option* option : named_options(*app_)) {
      const OptionFacts& about = facts(*option);
      if (!about.required || about.origin != Origin::Default) continue;
      throw Error(Kind::Misused,
                  fmt::format("--{} {} is missing", option->get_lnames()[0], value_name(*option)),
                  see_help(*app_));
    }
  }

  const CLI::App& root_;
  const std::vector<std::string>& words_;
  const CLI::App* app_;
  CommandLine out_;
  std::vector<std::string> options_, arguments_;
  std::string config_;
  size_t at_ = 0;
};

}  // namespace

CommandLine read_command_line(const CLI::App& root, const std::vector<std::string>& words) {
  return Reader(root, words).read();
}

std::vector<std::string> unknown_variables(const CLI::App& root) {
  std::vector<std::string> known = {"QUERN_ISA", "QUERN_OFFLINE", "QUERN_TOKENIZER_CACHE",
                                    "QUERN_SHARED", "QUERN_PUBLISHED"};
  std::vector<const CLI::App*> apps = all_commands(root);
  apps.push_back(&root);
  for (const CLI::App* app : apps) {
    for (const CLI::Option* option : app->get_options()) known.push_back(facts(*option).variable);
  }
  std::vector<std::string> lines;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string name(text.substr(0, text.find('=')));
    if (!name.starts_with("QUERN_")) continue;
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string guess = nearest(name, known);
    lines.push_back(fmt::format("nothing reads the variable {}{}", printable(name, 80),
                                guess.empty() ? "" : " (did you mean " + guess + "?)"));
  }
  return lines;
}

}  // namespace quern::cli
