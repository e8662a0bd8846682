// quern completion, quern man: made by walking the parser, so they cannot fall behind it.
#include <fmt/format.h>

#include "cli/command.h"
#include "core/error.h"

namespace quern::cli {
namespace {

std::vector<const CLI::App*> commands_of(const CLI::App& root) {
  return root.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::string joined(const std::vector<std::string>& words) { return CLI::detail::join(words, " "); }

std::string bash_completion(const CLI::App& root) {
  std::vector<std::string> names;
  for (const CLI::App* app : commands_of(root)) names.push_back(app->get_name());
  std::string text =
      "# bash completion for quern; load it with: source <(quern completion bash)\n"
      "_quern() {\n"
      "  local word=${COMP_WORDS[COMP_CWORD]} command= i options\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    case ${COMP_WORDS[i]} in\n"
      "      -*) ;;\n"
      "      *) command=${COMP_WORDS[i]}; break ;;\n"
      "    esac\n"
      "  done\n"
      "  case $command in\n";
  for (const CLI::App* app : commands_of(root)) {
    text += fmt::format("    {}) options='{}' ;;\n", app->get_name(), joined(option_names(*app)));
  }
  text += fmt::format("    *) options='{} {}' ;;\n", joined(names), joined(option_names(root)));
  text +=
      "  esac\n"
      "  if [[ -n $command && $word != -* ]]; then\n"
      "    COMPREPLY=($(compgen -f -- \"$word\"))\n"
      "  else\n"
      "    COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n"
      "  fi\n"
      "}\n"
      "complete -o filenames -F _quern quern\n";
  return text;
}

// A description for a shell's single quotes.
std::string quoted(std::string text) {
  for (char& c : text) {
    if (c == '\'' || c == '[' || c == ']' || c == ':' || c == '\\') c = ' ';
  }
  return text;
}

std::string zsh_completion(const CLI::App& root) {
  std::string text = "#compdef quern\n_quern() {\n  local -a commands\n  commands=(\n";
  for (const CLI::App* app : commands_of(root)) {
    text += fmt::format("    '{}:{}'\n", app->get_name(), quoted(app->get_description()));
  }
  text +=
      "  )\n"
      "  if (( CURRENT == 2 )); then\n    _describe command commands\n    return\n  fi\n"
      "  case $words[2] in\n";
  for (const CLI::App* app : commands_of(root)) {
    text += fmt::format("    {}) _arguments \\\n", app->get_name());
    for (const CLI::Option* option : app->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        text += fmt::format("      '--{}[{}]' \\\n", name, quoted(option->get_description()));
      }
    }
    text += "      '*:file:_files' ;;\n";
  }
  return text + "  esac\n}\n_quern \"$@\"\n";
}

std::string fish_completion(const CLI::App& root) {
  std::string text;
  for (const CLI::App* app : commands_of(root)) {
    text += fmt::format("complete -c quern -n __fish_use_subcommand -a {} -d '{}'\n",
                        app->get_name(), quoted(app->get_description()));
    for (const CLI::Option* option : app->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        text += fmt::format("complete -c quern -n '__fish_seen_subcommand_from {}' -l {} -d '{}'\n",
                            app->get_name(), name, quoted(option->get_description()));
      }
    }
  }
  return text;
}

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

void roff_options(const CLI::App& app, std::string& text) {
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_lnames().empty() && option->get_snames().empty()) continue;
    text += fmt::format(".TP\n.B {}\n{}", roff(option->get_name(false, true)),
                        roff(option->get_description()));
    if (!option->get_default_str().empty()) {
      text += fmt::format(" Default: {}.", roff(option->get_default_str()));
    }
    if (!option->get_envname().empty()) {
      text += fmt::format(" Environment: {}.", roff(option->get_envname()));
    }
    text += "\n";
  }
}

std::string man_page(const CLI::App& root, const CLI::App& app) {
  const bool whole = &app == &root;
  const std::string name = whole ? "quern" : "quern-" + app.get_name();
  std::string text =
      fmt::format(".TH {} 1\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n.B quern{}\n", roff(name),
                  roff(name), roff(app.get_description()),
                  whole ? " [options] command" : " " + app.get_name() + " [options]");
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_lnames().empty() && option->get_snames().empty()) {
      text += fmt::format(".I {}\n", roff(option->get_name(true)));
    }
  }
  if (whole) {
    text += ".SH COMMANDS\n";
    for (const CLI::App* command : commands_of(root)) {
      text +=
          fmt::format(".TP\n.B {}\n{}\n", command->get_name(), roff(command->get_description()));
    }
  }
  text += ".SH OPTIONS\n";
  roff_options(app, text);
  if (!app.get_footer().empty()) {
    text += ".SH EXAMPLES\n.nf\n" + roff(app.get_footer().substr(app.get_footer().find('\n') + 1)) +
            ".fi\n";
  }
  return text;
}

}  // namespace

void add_completion(CLI::App& root) {
  Command command(root, "completion", "Print a completion script for bash, zsh or fish",
                  {{"completion bash > /etc/bash_completion.d/quern", "install it for everybody"}});
  auto shell = std::make_shared<std::string>();
  command.positional("shell", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command.on_run([&root, shell] {
    print(*shell == "bash"  ? bash_completion(root)
          : *shell == "zsh" ? zsh_completion(root)
                            : fish_completion(root));
  });
}

void add_man(CLI::App& root) {
  Command command(root, "man", "Print a manual page in roff",
                  {{"man generate | man -l -", "read the page of one command"}});
  auto name = std::make_shared<std::string>();
  command.positional("command", *name, "The command; without one the page of the whole program");
  command.on_run([&root, name] {
    for (const CLI::App* app : commands_of(root)) {
      if (app->get_name() != *name) continue;
      print(man_page(root, *app));
      return;
    }
    if (!name->empty()) {
      throw Error(Kind::Misused, fmt::format("there is no command '{}'", printable(*name, 40)));
    }
    print(man_page(root, root));
  });
}

}  // namespace quern::cli
