#include "cli/commands/agent_run.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>

#include "cli/commands/arguments.h"
#include "cli/commands/chat_partner.h"
#include "cli/commands/model_store.h"
#include "cli/terminal/line_editor.h"
#include "cli/terminal/terminal.h"
#include "core/error.h"
#include "loop/agent.h"
#include "tools/builtin.h"
#include "tools/mcp.h"
#include "tools/tools_file.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::string prompt;
  ModelArguments model;
  ServerArguments server;
  std::vector<std::string> allow = {"calculator"}, yes, mcp;
  int64_t max_steps = 8, max_tokens = 4096;
  double max_seconds = 120;
  bool dry = false, json = false, list_tools = false;
  std::string tools, folder, transcript, style = "auto", system;
  SamplingArguments sampling;
};

// What happens, on standard error; the answer alone is standard output.
class Teller {
 public:
  explicit Teller(bool json) : json_(json) {}

  void operator()(const AgentEvent& event) const {
    using Type = AgentEvent::Type;
    if (json_) {
      print(python_dumps(to_json(event)) + "\n");
      flush_output();
      return;
    }
    switch (event.type) {
      case Type::Thought:
        say("", event.text);
        break;
      case Type::Call:
        say("-> ", event.tool + " " + python_dumps(event.arguments));
        break;
      case Type::Observation:
        say("<- ", event.text);
        break;
      case Type::Repair:
        say("<- ", "Error: " + event.text);
        break;
      default:
        break;  // asked for already, or said by the command's end
    }
  }

 private:
  static void say(const char* mark, const std::string& text) {
    if (globals().quiet) return;
    constexpr size_t kShown = 600;
    std::string shown = text.substr(0, text.size() > kShown ? kShown : text.size());
    if (text.size() > kShown) shown += fmt::format(" ... ({} bytes)", text.size());
    const bool dim = ::isatty(2) == 1;
    fmt::print(stderr, "{}{}{}{}\n", dim ? "\x1b[2m" : "", mark, printable(shown, 4 * kShown),
               dim ? "\x1b[0m" : "");
  }

  bool json_;
};

// Asks at the terminal, whatever standard input and output are.
bool confirm(const ToolSpec& tool, const OrderedJson& arguments) {
  std::FILE* terminal = std::fopen("/dev/tty", "r+");
  if (terminal == nullptr) {
    fmt::print(stderr, "quern: {} has side effects and nobody can be asked (--yes {} allows it)\n",
               tool.name, tool.name);
    return false;
  }
  fmt::print(terminal, "allow {} {}? [y/N] ", tool.name, printable(python_dumps(arguments), 2000));
  std::fflush(terminal);
  char line[16] = "";
  const bool read = std::fgets(line, sizeof line, terminal) != nullptr;
  std::fclose(terminal);
  return read && (line[0] == 'y' || line[0] == 'Y');
}

std::unique_ptr<Tool> make_builtin(const std::string& name, const std::string& folder) {
  if (name == "calculator") return make_calculator();
  if (name == "convert") return make_convert();
  if (name == "date") return make_date();
  if (name == "python") return make_python();
  if (name == "search_folder") {
    if (folder.empty()) {
      throw Error(Kind::Misused, "--allow search_folder: which folder?",
                  "--folder DIR, or folder = \"DIR\" in [tool.search_folder] of --tools");
    }
    return make_search_folder(folder);
  }
  if (name == "web_search") {
    throw Error(Kind::Misused, "--allow web_search: no search engine is configured",
                "url = \"https://.../?q={query}\" in [tool.web_search] of --tools switches it on");
  }
  const std::string guess = nearest(name, builtin_tool_names());
  throw Error(Kind::Misused, fmt::format("--allow: there is no tool {}", printable(name, 40)),
              guess.empty() ? fmt::format("known are {}", fmt::join(builtin_tool_names(), ", "))
                            : fmt::format("did you mean {}?", guess));
}

class AgentCommand {
 public:
  explicit AgentCommand(const Arguments& args) : args_(args) {
    if (!args.tools.empty()) add_tools_file(args.tools, tools_);
    std::vector<std::string> allow = args.allow;
    if (!args.folder.empty()) allow.push_back("search_folder");
    for (const std::string& name : allow) {
      // What the file has configured is there already.
      if (!name.empty() && tools_.find(name) == nullptr) {
        tools_.add(make_builtin(name, args.folder));
      }
    }
    for (const std::string& server : args.mcp) add_server(server);
    for (const std::string& name : args.yes) {
      if (tools_.find(name) != nullptr) continue;
      throw Error(Kind::Misused, fmt::format("--yes: there is no tool {}", printable(name, 40)),
                  fmt::format("here are {}", fmt::join(tools_.names(), ", ")));
    }
  }

  void run() {
    if (args_.list_tools) {
      list();
      return;
    }
    make_agent();
    std::optional<std::string> question;
    if (!args_.prompt.empty()) {
      question = args_.prompt;
    } else {
      question = piped_input();
    }
    if (question) {
      const AgentResult result = ask(*question);
      save();
      end(result);
    } else {
      converse();
      save();
    }
  }

 private:
  static void note(std::string_view text) {
    if (!globals().quiet) fmt::print(stderr, "quern: {}\n", printable(text, 400));
  }

  // One that fails leaves the others at work.
  void add_server(const std::string& text) {
    try {
      add_mcp_server(text, tools_, note);
    } catch (const Error& problem) {
      if (problem.kind() != Kind::Failed && problem.kind() != Kind::BadInput) throw;
      note(problem.line());
      server_failed_ = true;
    }
  }

  void list() const {
    for (const auto& tool : tools_.tools()) {
      const ToolSpec& spec = tool->spec();
      if (!args_.json) {
        print(fmt::format("{:<24} {} [{}{}]\n", spec.name, printable(spec.description, 200),
                          printable(spec.origin, 60), spec.side_effects ? ", asks first" : ""));
        continue;
      }
      OrderedJson out;
      out.set("name", OrderedJson::of_string(spec.name));
      out.set("description", OrderedJson::of_string(spec.description));
      out.set("parameters", spec.parameters);
      out.set("side_effects", OrderedJson::of_bool(spec.side_effects));
      out.set("origin", OrderedJson::of_string(spec.origin));
      print(python_dumps(out) + "\n");
    }
    if (server_failed_) throw Error(Kind::Failed, "not every MCP server gave its tools");
  }

  void make_agent() {
    if (args_.server.url.empty()) {
      partner_ = make_model_partner(args_.model);
    } else {
      ServerArguments server = args_.server;
      server.model = args_.model.model;
      partner_ = make_server_partner(server);
    }
    AgentOptions options;
    options.style = args_.style == "auto"    ? AgentStyle::Auto
                    : args_.style == "react" ? AgentStyle::React
                    : args_.style == "code"  ? AgentStyle::Code
                                             : AgentStyle::Tools;
    options.max_steps = args_.max_steps;
    options.max_seconds = args_.max_seconds;
    options.max_tokens = args_.max_tokens;
    options.dry = args_.dry;
    options.yes = args_.yes;
    options.system = args_.system;
    options.sampling = args_.sampling.choice();
    // Calls are to be right rather than various.
    const SamplingChoice& s = options.sampling;
    if (!s.temperature && !s.top_p && !s.top_k && !s.min_p && !s.typical_p) {
      options.sampling.greedy = true;
    }
    agent_.emplace(
        partner_->answerer(), tools_, std::move(options),
        AgentHooks{
            .event = Teller(args_.json), .confirm = confirm, .note = [](std::string_view text) {
              if (!globals().quiet) {
                fmt::print(stderr, "   {}\n", printable(text, 200));
              }
            }});
  }

  AgentResult ask(const std::string& question) {
    const InterruptScope scope;
    AgentResult result = agent_->ask(question, &interrupted);
    if (!args_.json && result.end == AgentResult::End::Answered) {
      print(for_terminal(result.text) + "\n");
    }
    flush_output();
    return result;
  }

  static void end(const AgentResult& result) {
    switch (result.end) {
      case AgentResult::End::Limited:
        throw Error(Kind::Partial, "ended without an answer: " + result.problem,
                    "--max-steps, --max-seconds and --max-tokens set the budgets");
      case AgentResult::End::Failed:
        throw Error(result.failure, result.problem);
      case AgentResult::End::Interrupted:
        throw Error(Kind::Interrupted, "interrupted");
      default:
        return;
    }
  }

  void converse() {
    LineEditor editor;
    if (at_terminal() && !args_.json) {
      print(fmt::format("{}; tools: {}; Ctrl-D ends\n", partner_->answerer().name(),
                        fmt::join(tools_.names(), ", ")));
      flush_output();
    }
    while (const auto entry = editor.read("> ")) {
      if (entry->find_first_not_of(" \t\n") == entry->npos) continue;
      if (*entry == "/quit" || *entry == "/exit") return;
      if (*entry == "/reset") {
        agent_->forget();
        continue;
      }
      try {
        end(ask(*entry));
      } catch (const Error& failure) {
        if (failure.kind() == Kind::NoResources) throw;
        fmt::print(stderr, "quern: {}\n", failure.line());
      }
    }
  }

  // A line more for each run: nothing that was there is lost.
  void save() const {
    if (args_.transcript.empty() || agent_->messages().empty()) return;
    OrderedJson line, list;
    list.kind = OrderedJson::Kind::Array;
    if (!args_.system.empty()) {
      list.items.push_back(to_json(Message(ChatRole::System, args_.system)));
    }
    for (const Message& message : agent_->messages()) list.items.push_back(to_json(message));
    line.set("messages", std::move(list));
    if (!tools_.empty()) line.set("tools", tools_.offered());
    std::FILE* file = std::fopen(args_.transcript.c_str(), "ab");
    if (file == nullptr) throw_errno(args_.transcript, "cannot write");
    const std::string text = python_dumps(line) + "\n";
    const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
    if (std::fclose(file) != 0 || !written) throw_errno(args_.transcript, "cannot write");
  }

  Arguments args_;
  Toolbox tools_;
  std::unique_ptr<ChatPartner> partner_;
  std::optional<Agent> agent_;
  bool server_failed_ = false;
};

}  // namespace

std::function<void()> declare_agent(Command& command) {
  auto args = std::make_shared<Arguments>();
  command.positional("question", args->prompt,
                     "What is asked; without it standard input, or a conversation");
  command
      .option("--model", args->model.model,
              "Model: a folder, a GGUF file or a name that `models` lists; with --server its name "
              "there",
              "SmolLM2-135M-Instruct, or the server's first")
      .usual();
  command.option("--server", args->server.url, "URL of an OpenAI-compatible server to ask instead")
      .value("URL")
      .usual();
  command.option("--api-key-file", args->server.api_key_file, "File with the server's API key")
      .file();
  command
      .option("--trusted-certificates", args->server.trusted,
              "PEM certificates to trust beside the system's")
      .file();
  command.group("Tools");
  command
      .option("--allow", args->allow,
              fmt::format("Built-in tools that may be called: {}",
                          fmt::join(builtin_tool_names(), ", ")))
      .separated_by(',')
      .value("NAME,...")
      .usual();
  command
      .option("--tools", args->tools,
              "TOML file with tools of your own: commands, HTTP, search (docs/agents.md)")
      .file()
      .usual();
  command
      .option("--mcp", args->mcp,
              "MCP server whose tools may be called, as NAME=COMMAND or NAME=URL; repeatable")
      .value("NAME=TARGET")
      .usual();
  command.option("--folder", args->folder, "Folder that search_folder searches; switches it on")
      .folder();
  command.option("--yes", args->yes, "Tools with side effects that need not ask first")
      .separated_by(',')
      .value("NAME,...")
      .usual();
  command.flag("--list-tools", args->list_tools, "List the tools and end");
  command
      .option(
          "--style", args->style,
          "How the model calls: tools = by its chat template, react = by ReAct, code = by Python "
          "programs in the sandbox, auto = by what its template knows")
      .one_of({"auto", "tools", "react", "code"});
  command.flag("--dry", args->dry, "Check and print calls, make none; the first ends the run");
  command.group("Budgets");
  command.option("--max-steps", args->max_steps, "Replies of the model to a question")
      .range(int64_t{1}, int64_t{1000})
      .usual();
  command.option("--max-seconds", args->max_seconds, "Time for a question")
      .range(0.01, 86400.0)
      .usual();
  command.option("--max-tokens", args->max_tokens, "Tokens that the model writes for a question")
      .range(int64_t{1}, int64_t{1} << 20)
      .usual();
  command.group("Output");
  command.flag("--json", args->json, "Print what happens as JSON lines").usual();
  command.option("--transcript", args->transcript, "File that the conversation is appended to")
      .file();
  command.option("--system", args->system, "System message", "the model's own");
  args->model.declare_options(command);
  args->model.declare_chat(command);
  args->sampling.declare(command);
  command.refuse(command.names_under("Model"), "and --server exclude each other",
                 [args] { return !args->server.url.empty(); });
  command.refuse({"--api-key-file", "--trusted-certificates"}, "goes with --server",
                 [args] { return args->server.url.empty(); });
  return [args] {
    if (args->server.url.empty() && !args->model.model.empty()) {
      args->model.model = resolve_model(args->model.model);
    }
    AgentCommand(*args).run();
  };
}

}  // namespace quern::cli
