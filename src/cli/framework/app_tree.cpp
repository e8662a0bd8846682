#include "cli/framework/app_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace quern::cli {
namespace {

constexpr size_t kColumn = 30;  // where descriptions begin
constexpr size_t kWidth = 100;

// Words put into lines of at most `width` bytes.
std::vector<std::string> wrap(const std::vector<std::string>& words, size_t width) {
  std::vector<std::string> lines(1);
  for (const std::string& word : words) {
    if (!lines.back().empty() && lines.back().size() + 1 + word.size() > width) {
      lines.emplace_back();
    }
    lines.back() += (lines.back().empty() ? "" : " ") + word;
  }
  return lines;
}

// "  left    text", the text wrapped in its column; `notes` follow it, each whole in a line.
void add_row(std::string& out, const std::string& left, const std::string& text,
             const std::vector<std::string>& notes = {}) {
  out += "  " + left;
  size_t column = left.size() + 2;
  if (column + 2 > kColumn) {
    out += '\n';
    column = 0;
  }
  std::vector<std::string> words = CLI::detail::split(text, ' ');
  words.insert(words.end(), notes.begin(), notes.end());
  for (const std::string& line : wrap(words, kWidth - kColumn)) {
    out += std::string(kColumn - column, ' ') + line + '\n';
    column = 0;
  }
}

}  // namespace

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<CLI::App*> commands_of(CLI::App& app) {
  return app.get_subcommands([](CLI::App*) { return true; });
}

std::vector<const CLI::App*> all_commands(const CLI::App& app) {
  std::vector<const CLI::App*> all;
  for (const CLI::App* command : commands_of(app)) {
    all.push_back(command);
    const auto below = all_commands(*command);
    all.insert(all.end(), below.begin(), below.end());
  }
  return all;
}

std::string full_name(const CLI::App& app) {
  if (app.get_parent() == nullptr) return {};
  const std::string above = full_name(*app.get_parent());
  return above.empty() ? app.get_name() : above + " " + app.get_name();
}

std::vector<const CLI::Option*> named_options(const CLI::App& app) {
  std::vector<const CLI::Option*> options = app.get_options();
  std::erase_if(options, [](const CLI::Option* option) {
    return option->get_lnames().empty() && option->get_snames().empty();
  });
  return options;
}

std::vector<const CLI::Option*> positionals(const CLI::App& app) {
  std::vector<const CLI::Option*> options = app.get_options();
  std::erase_if(options, [](const CLI::Option* option) { return !option->get_positional(); });
  return options;
}

std::vector<std::string> option_groups(const CLI::App& app) {
  std::vector<std::string> groups;
  for (const CLI::Option* option : named_options(app)) {
    if (std::find(groups.begin(), groups.end(), option->get_group()) == groups.end()) {
      groups.push_back(option->get_group());
    }
  }
  // What the command declares comes before the --help that it is born with.
  if (!groups.empty()) std::rotate(groups.begin(), groups.begin() + 1, groups.end());
  return groups;
}

std::string option_names(const CLI::Option& option) {
  std::string names;
  for (const std::string& name : option.get_snames()) names += ", -" + name;
  for (const std::string& name : option.get_lnames()) names += ", --" + name;
  return names.empty() ? names : names.substr(2);
}

std::string value_name(const CLI::Option& option) {
  if (option.get_expected_min() == 0 && !option.get_positional()) return {};
  const std::string type = option.get_type_name();
  if (type.starts_with("INT") || type.starts_with("UINT")) return "N";
  return type.starts_with("FLOAT") ? "X" : "TEXT";
}

std::vector<std::string> choices(const CLI::Option& option) {
  // CLI11 keeps them in the type only: "TEXT:{a,b}".
  const std::string type = option.get_type_name();
  const size_t begin = type.find('{'), end = type.rfind('}');
  if (begin == type.npos || end == type.npos || end < begin) return {};
  return CLI::detail::split(type.substr(begin + 1, end - begin - 1), ',');
}

std::string default_text(const CLI::Option& option) {
  if (option.get_required()) return {};
  // The configuration file's default is whichever file is there, which its description says.
  return option.get_lnames() == std::vector<std::string>{"config"} ? "" : option.get_default_str();
}

std::string environment_name(const std::string& command, const std::string& option) {
  std::string name = "QUERN_" + (command.empty() ? "" : command + "_") + option;
  for (char& c : name) {
    c = c == '-' || c == ' ' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

std::string HelpFormatter::make_help(const CLI::App* app, std::string, CLI::AppFormatMode) const {
  const bool whole = app->get_parent() == nullptr;
  const auto arguments = positionals(*app);
  const auto commands = commands_of(*app);
  std::string out = app->get_description() + "\n\nUsage: quern ";
  if (!whole) out += full_name(*app) + " ";
  if (!commands.empty()) out += "COMMAND ";
  for (const CLI::Option* argument : arguments) {
    const std::string name = argument->get_name(true);
    out += argument->get_required() ? name + " " : "[" + name + "] ";
  }
  out += "[options]\n";
  if (!arguments.empty()) {
    out += "\nArguments:\n";
    for (const CLI::Option* argument : arguments) {
      add_row(out, argument->get_name(true), argument->get_description());
    }
  }
  if (!commands.empty()) {
    out += "\nCommands:\n";
    for (const CLI::App* command : commands) {
      add_row(out, command->get_name(), command->get_description());
    }
  }
  for (const std::string& group : option_groups(*app)) {
    out += "\n" + group + ":\n";
    for (const CLI::Option* option : named_options(*app)) {
      if (option->get_group() != group) continue;
      std::vector<std::string> notes;
      if (option->get_required()) notes.push_back("[required]");
      if (!default_text(*option).empty()) {
        notes.push_back(fmt::format("[default: {}]", default_text(*option)));
      }
      if (!option->get_envname().empty()) {
        notes.push_back(fmt::format("[env: {}]", option->get_envname()));
      }
      add_row(out, option_names(*option) + " " + value_name(*option), option->get_description(),
              notes);
    }
  }
  if (!app->get_footer().empty()) out += "\n" + app->get_footer();
  if (whole) {
    out +=
        "\nIn brackets: the default. In capitals: the environment variable; the command line "
        "goes before it,\nand it before the configuration file. 'quern COMMAND --help' says "
        "more.\n";
  } else {
    out += "\nOptions of every command: quern --help\n";
  }
  return out;
}

}  // namespace quern::cli
