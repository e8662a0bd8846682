#include "cli/framework/app_tree.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <map>

#include "core/console.h"

namespace quern::cli {
namespace {

// Lines of help are as wide as the terminal, and no wider than is good to read.
struct Page {
  size_t width = static_cast<size_t>(std::clamp(console::columns(STDOUT_FILENO, 100), 30, 100));
  // Where descriptions begin; on a narrow terminal each stands below its option.
  size_t column = width >= 70 ? 30 : 4;
};

// Words put into lines of at most `width` columns.
std::vector<std::string> wrap(const std::vector<std::string>& words, size_t width) {
  std::vector<std::string> lines(1);
  for (const std::string& word : words) {
    const int columns = console::width(lines.back()) + 1 + console::width(word);
    if (!lines.back().empty() && static_cast<size_t>(columns) > width) lines.emplace_back();
    lines.back() += (lines.back().empty() ? "" : " ") + word;
  }
  return lines;
}

// "  left    text", the text wrapped in its column; `notes` follow it, each whole in a line.
void add_row(const Page& page, std::string& out, const std::string& left, const std::string& text,
             const std::vector<std::string>& notes = {}) {
  out += "  " + left;
  size_t column = left.size() + 2;
  if (column + 2 > page.column) {
    out += '\n';
    column = 0;
  }
  std::vector<std::string> words = CLI::detail::split(text, ' ');
  for (const std::string& note : notes) {
    const auto parts = CLI::detail::split(note, ' ');
    if (static_cast<size_t>(console::width(note)) > page.width - page.column) {
      words.insert(words.end(), parts.begin(), parts.end());
    } else {
      words.push_back(note);
    }
  }
  for (const std::string& line : wrap(words, page.width - page.column)) {
    out += std::string(page.column - column, ' ') + line + '\n';
    column = 0;
  }
}

void add_paragraph(const Page& page, std::string& out, const std::string& text) {
  for (const std::string& line : wrap(CLI::detail::split(text, ' '), page.width))
    out += line + '\n';
}

void add_option_row(const Page& page, std::string& out, const CLI::Option& option, bool whole) {
  const OptionFacts& about = facts(option);
  std::vector<std::string> notes;
  if (about.required) notes.push_back("[required]");
  const std::string absent = default_text(option);
  const bool said = absent.empty() || absent == "none" || (is_flag(option) && absent == "off");
  if (!said) notes.push_back(fmt::format("[default: {}]", absent));
  if (whole && !about.variable.empty()) notes.push_back(fmt::format("[env: {}]", about.variable));
  const std::string value = value_name(option);
  add_row(page, out, option_names(option) + (value.empty() ? "" : " " + value),
          option.get_description(), notes);
}

void add_arguments(const Page& page, std::string& out, const CLI::App& app, bool whole) {
  const auto arguments = positionals(app);
  if (arguments.empty()) return;
  out += "\nArguments:\n";
  for (const CLI::Option* argument : arguments) {
    std::vector<std::string> notes;
    const std::string& variable = facts(*argument).variable;
    if (whole && !variable.empty()) notes.push_back(fmt::format("[env: {}]", variable));
    add_row(page, out, value_name(*argument), argument->get_description(), notes);
  }
}

void add_commands_of(const Page& page, std::string& out, const CLI::App& app) {
  const auto commands = commands_of(app);
  if (commands.empty()) return;
  out += "\nCommands:\n";
  for (const CLI::App* command : commands) {
    add_row(page, out, command->get_name(), command->get_description());
  }
}

// Examples, each a line and what it is for, as many as are wanted.
std::string examples(const CLI::App& app, size_t most) {
  std::string out;
  size_t lines = 0;
  for (const std::string& line : CLI::detail::split(app.get_footer(), '\n')) {
    if (lines++ > 2 * most) break;
    if (!line.empty()) out += line + '\n';
  }
  return out;
}

}  // namespace

OptionFacts& facts(const CLI::Option& option) {
  static std::map<const CLI::Option*, OptionFacts> all;
  return all[&option];
}

UnknownOption& unknown_option(const CLI::App& app) {
  static std::map<const CLI::App*, UnknownOption> all;
  return all[&app];
}

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

bool is_flag(const CLI::Option& option) {
  return option.get_expected_min() == 0 && !option.get_positional();
}

bool is_list(const CLI::Option& option) { return option.get_expected_max() > 1; }

std::string value_name(const CLI::Option& option) {
  if (is_flag(option)) return {};
  const OptionFacts& about = facts(option);
  if (option.get_positional()) {
    std::string name = about.value.empty() ? option.get_name(true) : about.value;
    for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return is_list(option) ? name + "..." : name;
  }
  if (!about.value.empty()) return about.value;
  if (!about.choices.empty()) {
    const std::string all = CLI::detail::join(about.choices, "|");
    return all.size() <= 20 ? all : "WORD";
  }
  const std::string type = option.get_type_name();
  if (type.starts_with("INT") || type.starts_with("UINT")) return "N";
  return type.starts_with("FLOAT") ? "X" : "TEXT";
}

std::string usage(const CLI::App& app) {
  std::string text = app.get_parent() == nullptr ? "quern" : "quern " + full_name(app);
  if (!commands_of(app).empty()) text += " COMMAND";
  for (const CLI::Option* argument : positionals(app)) {
    const std::string name = value_name(*argument);
    text += facts(*argument).required ? " " + name : " [" + name + "]";
  }
  return text + " [options]";
}

std::string default_text(const CLI::Option& option) {
  if (facts(option).required) return {};
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

std::string whole_help(const CLI::App& app) {
  const Page page;
  const bool program = app.get_parent() == nullptr;
  std::string out;
  add_paragraph(page, out, app.get_description());
  out += "\nUsage: " + usage(app) + "\n";
  add_arguments(page, out, app, true);
  add_commands_of(page, out, app);
  for (const std::string& group : option_groups(app)) {
    out += "\n" + group + ":\n";
    for (const CLI::Option* option : named_options(app)) {
      if (option->get_group() == group) add_option_row(page, out, *option, true);
    }
  }
  if (!app.get_footer().empty()) out += "\n" + app.get_footer();
  out += "\n";
  add_paragraph(page, out,
                program
                    ? "Every option can be set on the command line, by its environment variable "
                      "or in a TOML file; the first of these that sets it counts. 'quern "
                      "COMMAND --help' lists a command's options."
                    : "Options of every command: quern --help");
  return out;
}

std::string short_help(const CLI::App& app) {
  constexpr size_t kOptions = 10, kExamples = 3;
  const Page page;
  std::string out;
  add_paragraph(page, out, app.get_description());
  out += "\nUsage: " + usage(app) + "\n";
  add_arguments(page, out, app, false);
  add_commands_of(page, out, app);
  std::vector<const CLI::Option*> options = named_options(app);
  std::erase_if(options, [&](const CLI::Option* option) { return option == app.get_help_ptr(); });
  const size_t all = options.size();
  const auto usual = [](const CLI::Option* option) {
    return facts(*option).usual || facts(*option).required;
  };
  if (all > kOptions && std::any_of(options.begin(), options.end(), usual)) {
    std::erase_if(options, [&](const CLI::Option* option) { return !usual(option); });
  }
  if (options.size() > kOptions) options.resize(kOptions);
  if (!options.empty()) out += "\nOptions:\n";
  for (const CLI::Option* option : options) add_option_row(page, out, *option, false);
  if (!app.get_footer().empty()) out += "\n" + examples(app, kExamples);
  out += "\n";
  const std::string name = full_name(app);
  add_paragraph(
      page, out,
      fmt::format("quern {}--help shows {}", name.empty() ? "" : name + " ",
                  all > options.size() ? fmt::format("all {} options", all) : std::string("more")));
  return out;
}

}  // namespace quern::cli
