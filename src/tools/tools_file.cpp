#include "tools/tools_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/ascii.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json_tree.h"
#include "core/toml.h"
#include "tools/builtin.h"
#include "tools/child_process.h"
#include "tools/http_tool.h"
#include "tools/schema_check.h"
#include "tools/yaml.h"

namespace quern {
namespace {

std::vector<std::string> texts(const Json& section, std::string_view key) {
  std::vector<std::string> out;
  if (const auto list = section.find(key)) {
    for (const Json& item : list->items()) out.push_back(item.string());
  }
  return out;
}

// A word of a command: texts, and the parameters between them. {{ and }} are braces, and so are those
// around what can be no parameter's name.
struct WordPart {
  std::string text;
  bool hole = false;
};
std::vector<WordPart> word_parts(const std::string& word) {
  std::vector<WordPart> out = {{}};
  const auto is_name = [](std::string_view name) {
    return !name.empty() && std::ranges::all_of(name, [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             c == '_' || c == '-';
    });
  };
  for (size_t at = 0; at < word.size(); ++at) {
    const char c = word[at];
    if ((c == '{' || c == '}') && at + 1 < word.size() && word[at + 1] == c) {
      out.back().text += c;
      ++at;
      continue;
    }
    const size_t close = c == '{' ? word.find('}', at) : word.npos;
    const std::string name = close == word.npos ? "" : word.substr(at + 1, close - at - 1);
    if (!is_name(name)) {
      out.back().text += c;
      continue;
    }
    out.push_back({name, true});
    out.push_back({});
    at = close;
  }
  return out;
}

// A command, some of whose words have {parameter} in them.
class CommandTool : public Tool {
 public:
  CommandTool(ToolSpec spec, ChildOptions options)
      : Tool(std::move(spec)), options_(std::move(options)) {}

  ToolResult call(const OrderedJson& arguments, const CallContext& context) override {
    ChildOptions options = options_;
    options.command.clear();
    bool ended = false;  // behind --, where nothing is an option
    for (const std::string& word : options_.command) {
      std::string out;
      bool dropped = false;
      for (const WordPart& part : word_parts(word)) {
        if (!part.hole) {
          out += part.text;
          continue;
        }
        const OrderedJson* value = arguments.find(part.text);
        if (value == nullptr || value->is_null()) {
          dropped = true;
          continue;
        }
        const std::string text = value->is_string() ? value->text : python_dumps(*value);
        if (text.find('\0') != text.npos) return {part.text + " holds a zero byte", true};
        if (out.empty() && !ended && value->is_string() && text.starts_with('-')) {
          return {part.text + " begins with -, which the command would take for an option", true};
        }
        out += text;
      }
      if (dropped) continue;  // an argument that was not given, with what stands around it
      ended |= word == "--";
      options.command.push_back(std::move(out));
    }
    const CommandOutcome outcome =
        run_command(options, context.seconds, spec().max_output + 1, context.cancel);
    std::string text = outcome.out;
    if (!outcome.err.empty()) text += (text.empty() ? "" : "\n") + outcome.err;
    std::string problem;
    if (outcome.late) problem = fmt::format("took longer than {:.0f} s", context.seconds);
    if (outcome.cancelled) problem = "was stopped";
    if (outcome.flooded) problem = "wrote more than 64 MiB";
    if (problem.empty() && !outcome.succeeded) problem = "ended with " + outcome.status;
    if (problem.empty()) return {text.empty() ? "(no output)" : text};
    return {fmt::format("the command {}\n{}", problem, text), true};
  }

 private:
  ChildOptions options_;
};

class ToolsFile {
 public:
  ToolsFile(const std::string& path, Toolbox& tools)
      : path_(path), folder_(fs::path(path).parent_path()), tools_(tools) {}

  void read() {
    const Json root = parse_toml_file(path_);
    root.only_keys({"tool"});
    const auto sections = root.find("tool");
    if (!sections) throw_bad_input(path_ + ": has no tool", "expected [tool.NAME]");
    for (const auto& [name, section] : sections->members()) add(name, section);
  }

 private:
  void add(const std::string& name, const Json& section) {
    check_tool_name(name, section.where());
    if (name == "search_folder" && !section.has("command")) {
      section.only_keys({"folder", "max_output"});
      auto tool = make_search_folder(folder_ / section.at("folder").string());
      limits(section, tool->spec());
      tools_.add(std::move(tool));
    } else if (name == "web_search" && !section.has("command")) {
      add_web_search(section);
    } else if (section.has("openapi")) {
      add_openapi(section);
    } else if (section.has("command")) {
      add_command(name, section);
    } else {
      section.fail("is no tool", "expected command = [...] or openapi = \"FILE\"");
    }
  }

  void limits(const Json& section, ToolSpec& spec) const {
    spec.timeout_s = section.number_or("timeout", spec.timeout_s, 0.01, 86400);
    spec.max_output = static_cast<size_t>(
        section.integer_or("max_output", static_cast<int64_t>(spec.max_output), 1, 16 << 10));
    spec.origin = path_;
  }

  std::vector<std::pair<std::string, std::string>> headers(const Json& section) {
    std::vector<std::pair<std::string, std::string>> out;
    const auto given = section.find("headers");
    if (!given) return out;
    for (const auto& [name, value] : given->members()) {
      std::string text = tools_.secrets.fill(value.string(), value.where());
      if ((name + text).find_first_of("\r\n") != name.npos) value.fail("has a line break");
      out.emplace_back(name, std::move(text));
    }
    return out;
  }

  void add_web_search(const Json& section) {
    section.only_keys({"url", "headers", "results", "title", "link", "text", "addresses", "timeout",
                       "max_output"});
    WebSearchOptions options;
    options.url = section.at("url").string();
    if (options.url.find("{query}") == options.url.npos) section.at("url").fail("has no {query}");
    options.headers = headers(section);
    options.results = section.string_or("results", options.results);
    options.title = section.string_or("title", options.title);
    options.link = section.string_or("link", options.link);
    options.text = section.string_or("text", options.text);
    options.addresses = texts(section, "addresses");
    http_policy(options.addresses, section.where() + ".addresses");
    auto tool = make_web_search(options);
    limits(section, tool->spec());
    tools_.add(std::move(tool));
  }

  void add_openapi(const Json& section) {
    section.only_keys({"openapi", "server", "operations", "headers", "addresses", "timeout",
                       "max_output", "side_effects"});
    HttpToolOptions options;
    options.server = section.string_or("server", "");
    options.operations = texts(section, "operations");
    options.headers = headers(section);
    options.addresses = texts(section, "addresses");
    http_policy(options.addresses, section.where() + ".addresses");
    const fs::path file = folder_ / section.at("openapi").string();
    const std::string ending = ascii_lower(file.extension().string());
    const bool yaml = ending == ".yaml" || ending == ".yml";
    const std::string text = read_file(file.string());
    const OrderedJson description =
        yaml ? parse_yaml(text, file.string()) : OrderedJson::parse(text, file.string());
    for (auto& tool : openapi_tools(description, options, file.string())) {
      limits(section, tool->spec());
      tool->spec().side_effects = section.boolean_or("side_effects", tool->spec().side_effects);
      tools_.add(std::move(tool));
    }
  }

  void add_command(const std::string& name, const Json& section) {
    section.only_keys({"description", "parameters", "command", "side_effects", "timeout",
                       "max_output", "env", "folder", "examples"});
    ToolSpec spec;
    spec.name = name;
    spec.description = section.string_or("description", "");
    limits(section, spec);
    spec.side_effects = section.boolean_or("side_effects", true);
    if (const auto given = section.find("parameters")) {
      // As text it keeps the order of its members.
      spec.parameters = given->is_string() ? OrderedJson::parse(given->string(), given->where())
                                           : from_tree(given->raw());
      if (!spec.parameters.is_object()) given->fail("is no object");
      if (spec.parameters.find("type") == nullptr) {
        spec.parameters.set("type", OrderedJson::of_string("object"));
      }
      const std::string problem = schema_problem(spec.parameters);
      if (!problem.empty()) given->fail("is no schema: " + problem);
    } else {
      spec.parameters = object_schema("{}", {});
    }
    ChildOptions options;
    options.command = texts(section, "command");
    if (options.command.empty()) section.at("command").fail("is empty");
    const OrderedJson* properties = spec.parameters.find("properties");
    for (const std::string& word : options.command) {
      for (const WordPart& part : word_parts(word)) {
        if (!part.hole) continue;
        if (properties == nullptr || properties->find(part.text) == nullptr) {
          section.at("command").fail(
              "has {" + printable(part.text, 40) + "}, which is no parameter",
              "{{ and }} are braces");
        }
      }
    }
    if (const auto folder = section.find("folder")) {
      options.folder = folder_ / folder->string();
      if (!fs::is_directory(options.folder)) folder->fail("is no folder");
    } else {
      options.folder = folder_;
    }
    for (const std::string& variable : texts(section, "env")) {
      const std::string value =
          tools_.secrets.fill("${" + variable + "}", section.where() + ".env");
      options.environment.emplace_back(variable, value);
    }
    if (const auto list = section.find("examples")) {
      for (const Json& item : list->items()) {
        item.only_keys({"query", "arguments", "result", "answer"});
        spec.examples.push_back({item.at("query").string(), from_tree(item.at("arguments").raw()),
                                 item.at("result").string(), item.at("answer").string()});
      }
    }
    tools_.add(std::make_unique<CommandTool>(std::move(spec), std::move(options)));
  }

  std::string path_;
  fs::path folder_;
  Toolbox& tools_;
};

}  // namespace

void add_tools_file(const std::string& path, Toolbox& tools) { ToolsFile(path, tools).read(); }

}  // namespace quern
