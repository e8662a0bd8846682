#include "tools/mcp.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "core/base64.h"
#include "core/error.h"
#include "tools/mcp_channel.h"
#include "tools/schema_check.h"

namespace quern {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kModern = "2026-07-28";
constexpr const char* kLegacy = "2025-11-25";
// The revisions that a handshake may agree on.
constexpr std::string_view kKnown[] = {"2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"};
constexpr double kProbeSeconds =
    10;  // for a server that begins slowly, as npx and uvx do: see probe
constexpr double kStartSeconds = 60;
constexpr int kMaxPages = 100;
constexpr size_t kMaxTools = 2000;
constexpr int kMaxStrays = 100;  // messages that answer nothing
constexpr int kMaxRounds = 4;    // of input_required
const JsonLimits kLimits = {
    .max_bytes = size_t{16} << 20, .max_depth = 64, .max_values = 1'000'000};

OrderedJson object() {
  OrderedJson out;
  out.kind = OrderedJson::Kind::Object;
  return out;
}
OrderedJson text(std::string value) { return OrderedJson::of_string(std::move(value)); }

std::string text_of(const OrderedJson& value, std::string_view key) {
  const OrderedJson* member = value.find(key);
  return member != nullptr && member->is_string() ? member->text : std::string();
}

Clock::time_point in_seconds(double seconds) {
  return Clock::now() + std::chrono::milliseconds(static_cast<int64_t>(1000 * seconds));
}

// An error that the server answered.
struct RpcError {
  std::string code, message;
};

// Header values beyond printable ASCII travel as =?base64?...?=.
std::string header_value(const std::string& value) {
  const bool plain = std::ranges::all_of(value, [](char c) { return c > ' ' && c < 0x7F; });
  return plain ? value : "=?base64?" + base64_encode(value) + "?=";
}

}  // namespace

struct McpServer::State {
  std::string name, target;
  std::unique_ptr<McpChannel> channel;
  enum class Era { Unknown, Modern, Legacy } era = Era::Unknown;
  bool list_changed = false;
  std::string revision;
  int64_t next_id = 1;
  int starts = 0;
  std::function<void(std::string_view)> note;

  bool is_http() const { return target.starts_with("http://") || target.starts_with("https://"); }

  void open() {
    if (++starts > 2) throw McpBroken{"the server ended again; it is not started a third time"};
    channel = is_http() ? reach_mcp_server(target) : start_mcp_program(command_words(target));
    if (era == Era::Legacy) initialize({in_seconds(kStartSeconds)});
  }

  static OrderedJson client_info() {
    OrderedJson info;
    info.set("name", text("quern"));
    info.set("version", text(QUERN_VERSION));
    return info;
  }

  // The message of a request; its id is `next_id`.
  OrderedJson message(const std::string& method, OrderedJson params, bool modern, bool progress) {
    OrderedJson meta = object();
    if (modern) {
      meta.set("io.modelcontextprotocol/protocolVersion", text(kModern));
      meta.set("io.modelcontextprotocol/clientInfo", client_info());
      meta.set("io.modelcontextprotocol/clientCapabilities", object());
    }
    if (progress) meta.set("progressToken", OrderedJson::of_integer(std::to_string(next_id)));
    if (!meta.members.empty()) params.set("_meta", std::move(meta));
    OrderedJson out;
    out.set("jsonrpc", text("2.0"));
    out.set("id", OrderedJson::of_integer(std::to_string(next_id)));
    out.set("method", text(method));
    out.set("params", std::move(params));
    return out;
  }

  void set_headers(const std::string& method, const OrderedJson& params, bool modern) {
    std::vector<std::pair<std::string, std::string>> headers;
    if (modern) {
      headers.emplace_back("MCP-Protocol-Version", kModern);
      headers.emplace_back("Mcp-Method", method);
      const std::string about = text_of(params, "name");
      if (!about.empty()) headers.emplace_back("Mcp-Name", header_value(about));
    } else if (!revision.empty()) {
      headers.emplace_back("MCP-Protocol-Version", revision);
    }
    channel->set_headers(std::move(headers));
  }

  // Asks and waits. Throws RpcError for an error that was answered, McpBroken for all else.
  OrderedJson ask(const std::string& method, OrderedJson params, const McpWait& wait, bool modern,
                  bool progress = false) {
    set_headers(method, params, modern);
    const OrderedJson request = message(method, std::move(params), modern, progress);
    const std::string id = std::to_string(next_id++);
    std::optional<OrderedJson> response;
    int strays = 0;
    try {
      channel->ask(python_dumps(request), wait, [&](std::string_view line) {
        OrderedJson came;
        try {
          came = OrderedJson::parse(line, "the server's message", kLimits);
        } catch (const Error& error) {
          if (++strays > kMaxStrays || line.starts_with('{')) throw McpBroken{error.what()};
          return false;  // a line that a program printed by mistake
        }
        const OrderedJson* answered = came.find("id");
        if (came.find("method") != nullptr) {
          heard(came, wait);
          return false;
        }
        const bool ours = answered != nullptr && answered->text == id;
        if (!ours) {
          // The answer to a request that was given up, or to none of ours.
          if (++strays > kMaxStrays) throw McpBroken{"the server answers what was not asked"};
          return false;
        }
        response = std::move(came);
        return true;
      });
    } catch (const McpBroken& broken) {
      if (broken.late && method != "initialize" && method != "server/discover") cancel(id, modern);
      throw;
    }
    if (const OrderedJson* error = response->find("error");
        error != nullptr && error->is_object()) {
      const OrderedJson* code = error->find("code");
      throw RpcError{code == nullptr ? "" : code->text, text_of(*error, "message")};
    }
    const OrderedJson* result = response->find("result");
    if (result == nullptr || !result->is_object()) {
      throw McpBroken{"the server's response has neither a result nor an error"};
    }
    return *result;
  }

  // Where the connection is closed, that says it already.
  void cancel(const std::string& id, bool modern) {
    if (modern && channel->is_http()) return;
    OrderedJson params, out;
    params.set("requestId", OrderedJson::of_integer(id));
    params.set("reason", text("no longer wanted"));
    out.set("jsonrpc", text("2.0"));
    out.set("method", text("notifications/cancelled"));
    out.set("params", std::move(params));
    try {
      channel->tell(python_dumps(out), {in_seconds(1)});
    } catch (const McpBroken&) {
      // It is given up either way.
    }
  }

  // What the server says or asks by itself. Sampling, roots and elicitation were not offered.
  void heard(const OrderedJson& message, const McpWait& wait) {
    const std::string method = text_of(message, "method");
    const OrderedJson* id = message.find("id");
    if (id == nullptr) {
      const OrderedJson* params = message.find("params");
      if (method == "notifications/tools/list_changed") list_changed = true;
      if (method == "notifications/progress" && params != nullptr && note) {
        const OrderedJson* progress = params->find("progress");
        const OrderedJson* total = params->find("total");
        note(fmt::format("{}: {}{} {}", name, progress == nullptr ? "" : python_dumps(*progress),
                         total == nullptr ? "" : " of " + python_dumps(*total),
                         text_of(*params, "message")));
      }
      return;
    }
    OrderedJson out;
    out.set("jsonrpc", text("2.0"));
    out.set("id", *id);
    if (method == "ping") {
      out.set("result", object());
    } else {
      OrderedJson error;
      error.set("code", OrderedJson::of_integer("-32601"));
      error.set("message", text("this client does not do " + printable(method, 60)));
      out.set("error", std::move(error));
    }
    channel->tell(python_dumps(out), wait);
  }

  void initialize(const McpWait& wait) {
    OrderedJson params;
    params.set("protocolVersion", text(kLegacy));
    params.set("capabilities", object());
    params.set("clientInfo", client_info());
    revision.clear();
    const OrderedJson result = ask("initialize", std::move(params), wait, false);
    const std::string version = text_of(result, "protocolVersion");
    if (std::ranges::find(kKnown, version) == std::end(kKnown)) {
      throw McpBroken{fmt::format("the server speaks revision '{}', which is not known here",
                                  printable(version, 40))};
    }
    revision = version;
    era = Era::Legacy;
    set_headers("", {}, false);
    OrderedJson done;
    done.set("jsonrpc", text("2.0"));
    done.set("method", text("notifications/initialized"));
    channel->tell(python_dumps(done), wait);
  }

  // Asks the way of 2026-07-28 first; who does not know it is greeted the old way.
  void probe() {
    if (channel == nullptr) open();
    if (era != Era::Unknown) return;
    try {
      const OrderedJson result =
          ask("server/discover", object(), {in_seconds(kProbeSeconds)}, true);
      const OrderedJson* versions = result.find("supportedVersions");
      const bool known =
          versions != nullptr && std::ranges::any_of(versions->items, [](const OrderedJson& one) {
            return one.is_string() && one.text == kModern;
          });
      if (known) {
        era = Era::Modern;
        revision = kModern;
        return;
      }
    } catch (const RpcError&) {
    } catch (const McpBroken& broken) {
      const bool refused = broken.status >= 400 && broken.status < 500;
      if (is_http() && !refused) throw;
      // Old servers end at what they don't know, or say nothing.
      if (!is_http() && !broken.late) {
        starts = 0;
        open();
      }
    }
    initialize({in_seconds(kStartSeconds)});
  }

  // With the server started again where it has ended. Throws Error.
  template <class Body>
  auto with_server(Body body) {
    try {
      probe();
      return body();
    } catch (const RpcError& error) {
      throw Error(Kind::Failed,
                  fmt::format("{}: error {}: {}", name, error.code, printable(error.message, 400)));
    } catch (const McpBroken& broken) {
      if (!broken.late) channel.reset();
      throw Error(Kind::Failed, fmt::format("{}: {}", name, broken.problem));
    }
  }
};

namespace {

class McpTool : public Tool {
 public:
  McpTool(ToolSpec spec, std::string remote, std::shared_ptr<McpServer> server)
      : Tool(std::move(spec)), remote_(std::move(remote)), server_(std::move(server)) {}
  ToolResult call(const OrderedJson& arguments, const CallContext& context) override {
    return server_->call(remote_, arguments, context);
  }

 private:
  std::string remote_;
  std::shared_ptr<McpServer> server_;  // shared by the server's tools
};

// The parts of a result as text: images and sounds are named, not shown.
std::string content_text(const OrderedJson& result) {
  std::string out;
  const auto add = [&](const std::string& part) { out += (out.empty() ? "" : "\n") + part; };
  const OrderedJson* content = result.find("content");
  if (content != nullptr && content->is_array()) {
    for (const OrderedJson& part : content->items) {
      const std::string type = text_of(part, "type");
      if (type == "text") {
        add(text_of(part, "text"));
      } else if (type == "image" || type == "audio") {
        add(fmt::format("[{} {}, {} bytes, not shown]", type, text_of(part, "mimeType"),
                        text_of(part, "data").size() / 4 * 3));
      } else if (type == "resource_link") {
        add(fmt::format("[resource {} {}]", text_of(part, "uri"), text_of(part, "name")));
      } else if (type == "resource") {
        const OrderedJson* resource = part.find("resource");
        if (resource == nullptr) continue;
        const std::string inner = text_of(*resource, "text");
        add(inner.empty() ? fmt::format("[resource {}, not shown]", text_of(*resource, "uri"))
                          : inner);
      } else {
        add(fmt::format("[a part of type {}, not shown]", printable(type, 40)));
      }
    }
  }
  const OrderedJson* structured = result.find("structuredContent");
  if (out.empty() && structured != nullptr) out = python_dumps(*structured);
  return out.empty() ? "(no output)" : out;
}

}  // namespace

McpServer::McpServer(std::string name, std::string target)
    : state_(new State{.name = std::move(name), .target = std::move(target)}) {}
McpServer::~McpServer() = default;

const std::string& McpServer::name() const noexcept { return state_->name; }
std::string_view McpServer::revision() const noexcept { return state_->revision; }

std::vector<std::unique_ptr<Tool>> McpServer::tools(
    const std::shared_ptr<McpServer>& self, const std::function<void(std::string_view)>& note) {
  return state_->with_server([&] {
    std::vector<std::unique_ptr<Tool>> out;
    std::set<std::string> cursors, names;
    std::string cursor;
    const auto skip = [&](const std::string& tool, const std::string& why) {
      note(fmt::format("{}: the tool {} is left out: {}", name(), printable(tool, 60), why));
    };
    for (int page = 0;; ++page) {
      if (page == kMaxPages) throw McpBroken{"the list of tools has more than 100 pages"};
      OrderedJson params = object();
      if (!cursor.empty()) params.set("cursor", text(cursor));
      const OrderedJson result = state_->ask("tools/list", std::move(params), {in_seconds(30)},
                                             state_->era == State::Era::Modern);
      const OrderedJson* list = result.find("tools");
      if (list == nullptr || !list->is_array()) throw McpBroken{"the list of tools is none"};
      for (const OrderedJson& item : list->items) {
        if (out.size() == kMaxTools) throw McpBroken{"the server has more than 2000 tools"};
        ToolSpec spec;
        spec.name = text_of(item, "name");
        spec.description = observation_text(text_of(item, "description"), 2000);
        spec.origin = name();
        const OrderedJson* schema = item.find("inputSchema");
        if (schema != nullptr) spec.parameters = *schema;
        const OrderedJson* hints = item.find("annotations");
        const OrderedJson* reads = hints == nullptr ? nullptr : hints->find("readOnlyHint");
        spec.side_effects = reads == nullptr || !reads->boolean;
        spec.timeout_s = 60;
        try {
          check_tool_name(spec.name, name());
        } catch (const Error&) {
          skip(spec.name, "its name has other characters than letters, digits, _, - and dots");
          continue;
        }
        if (!names.insert(spec.name).second) {
          skip(spec.name, "another one has its name");
          continue;
        }
        if (!spec.parameters.is_object()) {
          skip(spec.name, "it has no inputSchema");
          continue;
        }
        if (const std::string problem = schema_problem(spec.parameters); !problem.empty()) {
          skip(spec.name, problem);
          continue;
        }
        const std::string remote = spec.name;
        out.push_back(std::make_unique<McpTool>(std::move(spec), remote, self));
      }
      cursor = text_of(result, "nextCursor");
      if (cursor.empty()) return out;
      if (!cursors.insert(cursor).second)
        throw McpBroken{"the list of tools goes around in a circle"};
    }
  });
}

std::optional<std::vector<std::unique_ptr<Tool>>> McpServer::changed_tools(
    const std::shared_ptr<McpServer>& self, const std::function<void(std::string_view)>& note) {
  if (!std::exchange(state_->list_changed, false)) return std::nullopt;
  return tools(self, note);
}

ToolResult McpServer::call(const std::string& tool, const OrderedJson& arguments,
                           const CallContext& context) {
  state_->note = context.note;
  const McpWait wait = {in_seconds(context.seconds), context.cancel};
  return state_->with_server([&]() -> ToolResult {
    OrderedJson params;
    params.set("name", text(tool));
    params.set("arguments", arguments);
    const bool modern = state_->era == State::Era::Modern;
    for (int round = 0; round < kMaxRounds; ++round) {
      const OrderedJson result = state_->ask("tools/call", params, wait, modern, true);
      if (text_of(result, "resultType") != "input_required") {
        const OrderedJson* failed = result.find("isError");
        return {content_text(result), failed != nullptr && failed->boolean};
      }
      // What it wants to know is not told: nobody was asked.
      OrderedJson answers = object();
      if (const OrderedJson* wanted = result.find("inputRequests");
          wanted != nullptr && wanted->is_object()) {
        for (const auto& [id, request] : wanted->members) {
          OrderedJson decline;
          decline.set("action", text("decline"));
          answers.set(id, std::move(decline));
        }
      }
      params.set("inputResponses", std::move(answers));
      if (const OrderedJson* state = result.find("requestState"))
        params.set("requestState", *state);
    }
    return {"the server asks for input again and again, which was declined", true};
  });
}

std::vector<std::string> command_words(std::string_view text) {
  std::vector<std::string> out;
  std::string word;
  bool open = false;
  char quote = '\0';
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote != '\0') {
      if (c == quote) {
        quote = '\0';
      } else if (c == '\\' && quote == '"' && i + 1 < text.size()) {
        word += text[++i];
      } else {
        word += c;
      }
    } else if (c == '\'' || c == '"') {
      quote = c;
      open = true;
    } else if (c == '\\' && i + 1 < text.size()) {
      word += text[++i];
      open = true;
    } else if (c == ' ' || c == '\t' || c == '\n') {
      if (open) out.push_back(std::exchange(word, {}));
      open = false;
    } else {
      word += c;
      open = true;
    }
  }
  if (quote != '\0') {
    throw Error(Kind::Misused,
                fmt::format("the command line {} has an open quote", printable(text, 80)));
  }
  if (open) out.push_back(word);
  return out;
}

void add_mcp_server(const std::string& text, Toolbox& tools,
                    const std::function<void(std::string_view)>& note) {
  const size_t mark = text.find('=');
  const std::string name = text.substr(0, mark);
  if (mark == text.npos || name.empty() || mark + 1 == text.size() ||
      name.find_first_of("/ :") != name.npos) {
    throw Error(Kind::Misused,
                fmt::format("--mcp '{}' is no NAME=COMMAND or NAME=URL", printable(text, 80)),
                "for example --mcp time=\"uvx mcp-server-time\"");
  }
  const auto server = std::make_shared<McpServer>(name, text.substr(mark + 1));
  for (auto& tool : server->tools(server, note)) tools.add_from(std::move(tool), name);
  tools.add_source(name, [server, note] { return server->changed_tools(server, note); });
}

}  // namespace quern
