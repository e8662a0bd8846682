// quern man: manual pages and docs/commands.md, made from the declarations of the options.
#include <fmt/format.h>

#include <algorithm>

#include "cli/framework/app_tree.h"
#include "cli/framework/command.h"
#include "core/error.h"
#include "core/file.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::vector<std::string> words;
  bool markdown = false;
  std::string out;
};

std::string roff(std::string_view text) {
  std::string out;
  bool line_start = true;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if (line_start && (c == '.' || c == '\'')) {
      out += "\\&";
      out += c;
    } else {
      out += c;
    }
    line_start = c == '\n';
  }
  return out;
}

std::string man_page(const CLI::App& app) {
  const bool whole = app.get_parent() == nullptr;
  std::string name = whole ? "quern" : "quern-" + full_name(app);
  for (char& c : name) c = c == ' ' ? '-' : c;
  std::string text = fmt::format(
      ".TH {} 1 \"\" \"quern {}\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n.B {}\n", roff(name),
      QUERN_VERSION, roff(name), roff(app.get_description()), roff(usage(app)));
  if (!positionals(app).empty()) text += ".SH ARGUMENTS\n";
  for (const CLI::Option* argument : positionals(app)) {
    text += fmt::format(".TP\n.I {}\n{}\n", roff(value_name(*argument)),
                        roff(argument->get_description()));
  }
  if (!commands_of(app).empty()) text += ".SH COMMANDS\n";
  for (const CLI::App* command : commands_of(app)) {
    text += fmt::format(".TP\n.B {}\n{}\n", command->get_name(), roff(command->get_description()));
  }
  text += ".SH OPTIONS\n";
  for (const std::string& group : option_groups(app)) {
    text += ".SS " + roff(group) + "\n";
    for (const CLI::Option* option : named_options(app)) {
      if (option->get_group() != group) continue;
      text += fmt::format(".TP\n\\fB{}\\fR {}\n{}.\n", roff(option_names(*option)),
                          value_name(*option), roff(option->get_description()));
      if (!default_text(*option).empty()) {
        text += fmt::format("Default: {}.\n", roff(default_text(*option)));
      }
      if (!facts(*option).variable.empty()) {
        text += fmt::format("Environment: {}.\n", roff(facts(*option).variable));
      }
    }
  }
  text +=
      ".SH FILES\n\\&./quern.toml, ~/.config/quern/config.toml: options by their long names, in a\n"
      "table for each command.\n"
      ".SH EXIT STATUS\n0 done, 1 failed, 2 misused, 3 bad input file, 4 out of memory or space, 5 "
      "not supported here, 6 ended early\nwith partial results, 130 interrupted.\n";
  const std::string& examples = app.get_footer();
  if (!examples.empty()) {
    text += ".SH EXAMPLES\n.nf\n" + roff(examples.substr(examples.find('\n') + 1)) + ".fi\n";
  }
  return text;
}

// A cell of a table in Markdown.
std::string cell(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '|' || c == '<' || c == '*') out += '\\';
    out += c;
  }
  return out;
}

void option_table(const CLI::App& app, std::string& text) {
  text += "| option | | default | environment |\n| --- | --- | --- | --- |\n";
  for (const std::string& group : option_groups(app)) {
    for (const CLI::Option* option : named_options(app)) {
      if (option->get_group() != group || option == app.get_help_ptr()) continue;
      std::string value = value_name(*option);
      // A bar would end the cell, even within backquotes.
      for (size_t at = 0; (at = value.find('|', at)) != value.npos; at += 2) value.insert(at, "\\");
      text +=
          fmt::format("| `{}{}` | {} | {} | {} |\n", option_names(*option),
                      value.empty() ? "" : " " + value, cell(option->get_description()),
                      facts(*option).required ? "required" : cell(default_text(*option)),
                      facts(*option).variable.empty() ? "" : "`" + facts(*option).variable + "`");
    }
  }
}

std::string markdown(const CLI::App& root) {
  std::string text =
      "# Commands\n\nMade by `quern man --markdown`; a test holds this page to it. Where an option "
      "may be set is said in\n[cli.md](cli.md).\n\n## Options of every command\n\n";
  option_table(root, text);
  for (const CLI::App* app : all_commands(root)) {
    // A word that only leads to commands has nothing of its own; `eval` takes tasks itself.
    if (!commands_of(*app).empty() && positionals(*app).empty()) continue;
    text += fmt::format("\n## quern {}\n\n{}.\n\n    {}\n\n", full_name(*app),
                        app->get_description(), usage(*app));
    for (const CLI::Option* argument : positionals(*app)) {
      text += fmt::format("- `{}`: {} (`{}`)\n", value_name(*argument),
                          cell(argument->get_description()), facts(*argument).variable);
    }
    if (!positionals(*app).empty()) text += "\n";
    if (named_options(*app).size() > 1) option_table(*app, text);
    const std::string& examples = app->get_footer();
    if (!examples.empty()) {
      text += fmt::format("\n```\n{}```\n", examples.substr(examples.find('\n') + 1));
    }
  }
  return text;
}

}  // namespace

void add_man(CLI::App& root) {
  Command command(root, "man", "Print a manual page in roff",
                  {{"man generate > quern-generate.1",
                    "the page of one command; man ./quern-generate.1 shows it"},
                   {"man --markdown > commands.md", "all of it as one page"}});
  auto args = std::make_shared<Arguments>();
  command.positional("command", args->words, "The command; none: the page of the whole program");
  command.flag("--markdown", args->markdown, "Print one page of every command, in Markdown");
  command.option("--out", args->out, "Write every page into this folder, as quern-COMMAND.1")
      .folder();
  command.on_run([&root, args] {
    if (!args->out.empty()) {
      // Pages are made by the program and made anew: nothing else has these names.
      const auto write = [&](const CLI::App& app) {
        std::string name = "quern-" + full_name(app);
        std::replace(name.begin(), name.end(), ' ', '-');
        if (app.get_parent() == nullptr) name = "quern";
        write_file(fs::path(args->out) / (name + ".1"), man_page(app));
      };
      write(root);
      for (const CLI::App* app : all_commands(root)) write(*app);
      return;
    }
    if (args->markdown) {
      print(markdown(root));
      return;
    }
    const std::string wanted = CLI::detail::join(args->words, " ");
    std::vector<std::string> known;
    for (const CLI::App* app : all_commands(root)) {
      known.push_back(full_name(*app));
      if (known.back() != wanted) continue;
      print(man_page(*app));
      return;
    }
    if (!wanted.empty()) {
      const std::string guess = nearest(wanted, known);
      throw Error(Kind::Misused, fmt::format("there is no command '{}'", printable(wanted, 40)),
                  guess.empty() ? "quern --help lists them" : "did you mean " + guess + "?");
    }
    print(man_page(root));
  });
}

}  // namespace quern::cli
