// quern completion: what Tab offers, made by walking the parser so that it cannot fall behind.
#include <fmt/format.h>

#include "cli/framework/app_tree.h"
#include "cli/framework/command.h"

namespace quern::cli {
namespace {

std::string joined(const std::vector<std::string>& words) { return CLI::detail::join(words, " "); }

std::vector<std::string> names_of(const std::vector<const CLI::App*>& commands) {
  std::vector<std::string> names;
  for (const CLI::App* command : commands) names.push_back(command->get_name());
  return names;
}

std::vector<std::string> flags_of(const CLI::Option& option) {
  std::vector<std::string> flags;
  for (const std::string& name : option.get_snames()) flags.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) flags.push_back("--" + name);
  return flags;
}

std::vector<std::string> flags_of(const CLI::App& app) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : named_options(app)) {
    for (const std::string& flag : flags_of(*option)) flags.push_back(flag);
  }
  return flags;
}

using Completes = OptionFacts::Completes;

// Arms of a bash `case "$command $previous"` for options that take a value: its words, or whether
// files or folders are meant.
void bash_values(const CLI::App& app, std::string& text) {
  for (const CLI::Option* option : named_options(app)) {
    if (is_flag(*option)) continue;
    const OptionFacts& about = facts(*option);
    const std::string offer = !about.choices.empty() ? "words='" + joined(about.choices) + "'"
                              : about.completes == Completes::Files   ? "value=files"
                              : about.completes == Completes::Folders ? "value=folders"
                                                                      : "value=text";
    for (const std::string& flag : flags_of(*option)) {
      // The program's own options may stand behind any command.
      const bool global = app.get_parent() == nullptr;
      text +=
          fmt::format("    {}) {} ;;\n",
                      global ? "*' " + flag + "'" : "'" + full_name(app) + " " + flag + "'", offer);
    }
  }
}

// The words of a command's first argument, where it takes only certain ones.
std::vector<std::string> argument_words(const CLI::App& app) {
  const auto arguments = positionals(app);
  return arguments.empty() ? std::vector<std::string>() : facts(*arguments[0]).choices;
}

std::string bash_completion(const CLI::App& root) {
  const auto commands = all_commands(root);
  std::string paths, values, offers;
  for (const CLI::App* app : commands) {
    const std::string above = full_name(*app->get_parent());
    paths += fmt::format("{}'{} {}'", paths.empty() ? "" : "|", above, app->get_name());
    bash_values(*app, values);
    offers += fmt::format(
        "    '{}') options='{}' words='{}' ;;\n", full_name(*app), joined(flags_of(*app)),
        joined(commands_of(*app).empty() ? argument_words(*app) : names_of(commands_of(*app))));
  }
  bash_values(root, values);
  return fmt::format(R"(# bash completion for quern; load it with: source <(quern completion bash)
_quern() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
  local command= options= words= value= i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$command ${{COMP_WORDS[i]}}" in
      {}) command=${{command:+$command }}${{COMP_WORDS[i]}} ;;
    esac
  done
  case "$command $previous" in
{}  esac
  if [[ -n $words ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    return
  fi
  case $value in
    files) COMPREPLY=($(compgen -f -- "$word")); return ;;
    folders) COMPREPLY=($(compgen -d -- "$word")); return ;;
    text) COMPREPLY=(); return ;;
  esac
  case $command in
{}    *) words='{}' ;;
  esac
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$options {}" -- "$word"))
  elif [[ -n $words ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _quern quern
)",
                     paths, values, offers, joined(names_of(commands_of(root))),
                     joined(flags_of(root)));
}

// A description within single quotes of zsh, where brackets and colons part fields.
std::string zsh_quoted(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out;
}

// A description within single quotes of fish.
std::string fish_quoted(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

void zsh_describe(const CLI::App& app, const std::string& indent, std::string& text) {
  text += indent + "commands=(\n";
  for (const CLI::App* command : commands_of(app)) {
    text += fmt::format("{}  '{}:{}'\n", indent, command->get_name(),
                        zsh_quoted(command->get_description()));
  }
  text += indent + ")\n" + indent + "_describe command commands\n";
}

std::string zsh_value(const CLI::Option& option) {
  const std::string name = ":" + zsh_quoted(value_name(option));
  switch (facts(option).completes) {
    case Completes::Files:
      return name + ":_files";
    case Completes::Folders:
      return name + ":_files -/";
    default:
      return name + ": ";
  }
}

std::string zsh_completion(const CLI::App& root) {
  std::string text =
      "#compdef quern\n_quern() {\n  local -a commands\n  if (( CURRENT == 2 )); then\n";
  zsh_describe(root, "    ", text);
  text += "    return\n  fi\n  case \"$words[2] $words[3] \" in\n";
  const auto commands = all_commands(root);
  // Longer names first: 'bench model' before 'bench'.
  for (auto app = commands.rbegin(); app != commands.rend(); ++app) {
    text += fmt::format("    '{} '*)\n", full_name(**app));
    if (!commands_of(**app).empty()) {
      zsh_describe(**app, "      ", text);
      text += "      ;;\n";
      continue;
    }
    text += "      _arguments \\\n";
    for (const CLI::App* owner : {*app, &root}) {
      for (const CLI::Option* option : named_options(*owner)) {
        const auto& words = facts(*option).choices;
        const std::string value = is_flag(*option) ? ""
                                  : !words.empty() ? ":value:(" + joined(words) + ")"
                                                   : zsh_value(*option);
        for (const std::string& flag : flags_of(*option)) {
          if (owner == &root && flag.ends_with("-help")) continue;
          text += fmt::format("        '{}[{}]{}' \\\n", flag,
                              zsh_quoted(option->get_description()), value);
        }
      }
    }
    const auto offered = argument_words(**app);
    text += offered.empty() ? "        '*:file:_files' ;;\n"
                            : "        '1:argument:(" + joined(offered) + ")' ;;\n";
  }
  return text + "  esac\n}\ncompdef _quern quern\n";
}

std::string fish_completion(const CLI::App& root) {
  std::string text;
  for (const CLI::App* app : all_commands(root)) {
    const bool nested = app->get_parent() != &root;
    const std::string above =
        nested ? fmt::format("'__fish_seen_subcommand_from {}'", full_name(*app->get_parent()))
               : "__fish_use_subcommand";
    text += fmt::format("complete -c quern -n {} -a {} -d '{}'\n", above, app->get_name(),
                        fish_quoted(app->get_description()));
    const auto offered = argument_words(*app);
    if (!offered.empty()) {
      text += fmt::format("complete -c quern -n '__fish_seen_subcommand_from {}' -f -a '{}'\n",
                          app->get_name(), joined(offered));
    }
    for (const CLI::Option* option : named_options(*app)) {
      std::string flags;
      for (const std::string& name : option->get_snames()) flags += " -s " + name;
      for (const std::string& name : option->get_lnames()) flags += " -l " + name;
      const OptionFacts& about = facts(*option);
      if (!is_flag(*option)) flags += about.completes == Completes::Nothing ? " -x" : " -r";
      if (about.completes == Completes::Folders) flags += " -f -a '(__fish_complete_directories)'";
      if (!about.choices.empty()) flags += " -a '" + joined(about.choices) + "'";
      text += fmt::format("complete -c quern -n '__fish_seen_subcommand_from {}'{} -d '{}'\n",
                          app->get_name(), flags, fish_quoted(option->get_description()));
    }
  }
  return text;
}

}  // namespace

void add_completion(CLI::App& root) {
  Command command(root, "completion", "Print a completion script for bash, zsh or fish",
                  {{"completion bash > ~/.local/share/bash-completion/completions/quern",
                    "install it for yourself"}});
  auto shell = std::make_shared<std::string>();
  command.positional("shell", *shell, "bash, zsh or fish")
      .required()
      .one_of({"bash", "zsh", "fish"});
  command.on_run([&root, shell] {
    print(*shell == "bash"  ? bash_completion(root)
          : *shell == "zsh" ? zsh_completion(root)
                            : fish_completion(root));
  });
}

}  // namespace quern::cli
