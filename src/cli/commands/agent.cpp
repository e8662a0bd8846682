// quern agent: a question answered with tools; below it prompts that offer tools to a model, and what
// its replies ask for.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/react_prompt.h"
#include "agent/reply.h"
#include "cli/commands/agent_run.h"
#include "cli/framework/command.h"
#include "core/error.h"
#include "core/json.h"

namespace quern::cli {
namespace {

struct PromptArguments {
  std::string tools, history, style = "react";
  std::optional<std::string> query;
};

struct ParseArguments {
  std::string style = "react", file = "-";
  bool parity = false;
};

OrderedJson read_json(const std::string& path) {
  return OrderedJson::parse(read_input(path), path == "-" ? "standard input" : path);
}

void run_prompt(const PromptArguments& args) {
  const ReactForm form = args.style == "react"  ? ReactForm::React
                         : args.style == "demo" ? ReactForm::Demo
                                                : ReactForm::OpenAI;
  std::vector<ReactTool> tools;
  if (!args.tools.empty()) tools = react_tools(read_json(args.tools), form, args.tools);
  std::vector<ReactMessage> history;
  if (!args.history.empty()) history = react_history(read_json(args.history), args.history);
  if (!args.query && (form != ReactForm::OpenAI || history.empty())) {
    throw Error(Kind::Misused, "--query is missing", "what the user asks; '' for nothing");
  }
  print(react_prompt(form, tools, history, args.query) + "\n");
}

OrderedJson optional_text(const std::optional<std::string>& text) {
  return text ? OrderedJson::of_string(*text) : OrderedJson{};
}

OrderedJson to_json(const ParsedReply& reply) {
  OrderedJson out;
  out.set("thought", OrderedJson::of_string(reply.thought));
  OrderedJson calls;
  calls.kind = OrderedJson::Kind::Array;
  for (const ReplyCall& call : reply.calls) {
    OrderedJson item;
    item.set("name", OrderedJson::of_string(call.name));
    item.set("arguments", call.arguments);
    item.set("raw", OrderedJson::of_string(call.raw));
    item.set("repaired", OrderedJson::of_bool(call.repaired));
    calls.items.push_back(std::move(item));
  }
  out.set("calls", std::move(calls));
  out.set("final", optional_text(reply.final));
  out.set("error", reply.error.empty() ? OrderedJson{} : OrderedJson::of_string(reply.error));
  return out;
}

OrderedJson to_json(const ReactParity& reply) {
  OrderedJson out;
  out.set("positive", OrderedJson::of_bool(reply.positive));
  const std::pair<const char*, const std::string&> fields[] = {
      {"thought", reply.thought},           {"action", reply.action},
      {"action_input", reply.action_input}, {"observation", reply.observation},
      {"thought_last", reply.thought_last}, {"final_answer", reply.final_answer}};
  for (const auto& [name, text] : fields) out.set(name, OrderedJson::of_string(text));
  return out;
}

void run_parse(const ParseArguments& args) {
  const auto style = tool_style(args.style);
  if (args.parity && *style != ToolStyle::React) {
    throw Error(Kind::Misused, "--parity goes with --style react only",
                "the release's benchmark knows no other form");
  }
  const std::string source = args.file == "-" ? "standard input" : args.file;
  const std::string input = read_input(args.file);
  size_t line_number = 0;
  for (size_t at = 0; at < input.size();) {
    const size_t end = std::min(input.find('\n', at), input.size());
    const std::string_view line = std::string_view(input).substr(at, end - at);
    at = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}, line {}", source, line_number);
    const OrderedJson record = OrderedJson::parse(line, where);
    const OrderedJson* id = record.find("id");
    const OrderedJson* response = record.find("response");
    if (response == nullptr || !response->is_string()) {
      throw_bad_input(where + ": has no text in the field response",
                      "expected {\"id\": ..., \"response\": \"...\"}");
    }
    const OrderedJson fields = args.parity ? to_json(parse_react_as_release(response->text))
                                           : to_json(parse_reply(*style, response->text));
    OrderedJson out;
    out.set("id", id == nullptr ? OrderedJson{} : *id);
    for (const auto& [name, value] : fields.members) out.set(name, value);
    print(python_dumps(out) + "\n");
  }
}

}  // namespace

void add_agent(CLI::App& root) {
  Command agent(root, "agent", "Answer a question with tools",
                {{"agent 'What is 17.5% of 2340 plus 12?'", "through the calculator"},
                 {"agent --allow date,convert --json 'How many miles are 42 km?'",
                  "what happens, as JSON lines"}});
  agent.on_run(declare_agent(agent));

  auto prompt_args = std::make_shared<PromptArguments>();
  Command prompt(agent.app(), "prompt", "Print the prompt that offers tools to a model",
                 {{"agent prompt --style react --tools tools.json --query 'Weather in Rome?'",
                   "the user turn of a ReAct prompt"}});
  prompt
      .option("--style", prompt_args->style,
              "react: the user turn alone; demo, openai: the whole ChatML text")
      .one_of({"react", "demo", "openai"});
  prompt.option("--tools", prompt_args->tools, "JSON file with an array of tools", "no tools");
  prompt.option("--history", prompt_args->history,
                "JSON file with earlier turns: {\"user\", \"bot\"} pairs or messages",
                "no history");
  prompt.option("--query", prompt_args->query, "What the user asks",
                "the history's last turn (openai)");
  prompt.on_run([prompt_args] { run_prompt(*prompt_args); });

  auto parse_args = std::make_shared<ParseArguments>();
  Command parse(agent.app(), "parse", "Read tool calls from replies: JSON lines in, JSON lines out",
                {{"agent parse --style hermes replies.jsonl", "one line per reply"}});
  parse.positional("file", parse_args->file,
                   "JSON lines {\"id\", \"response\"}; - is standard input");
  parse.option("--style", parse_args->style, "Form of the calls")
      .one_of({"react", "hermes", "llama", "mistral"});
  parse.flag("--parity", parse_args->parity,
             "Read as the Qwen-7B release's plugin benchmark does, its faults included");
  parse.on_run([parse_args] { run_parse(*parse_args); });
}

}  // namespace quern::cli
