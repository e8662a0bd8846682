// A client of the Model Context Protocol: tools of a server that runs as a program or answers over
// HTTP. Revisions 2026-07-28 (stateless) and 2025-11-25, 2025-06-18 and older (a session that begins
// with initialize); which of the two a server speaks is found out once.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/tool.h"

namespace quern {

class McpServer {
 public:
  // `target` is an http or https address, or a command line: words with quotes, read by no shell.
  McpServer(std::string name, std::string target);
  ~McpServer();

  // The server's tools. What cannot be offered (a name or a schema that is none, a name that came
  // before) is left out, and `note` told. Throws Failed where the server is none.
  std::vector<std::unique_ptr<Tool>> tools(const std::shared_ptr<McpServer>& self,
                                           const std::function<void(std::string_view)>& note);
  // The same again where the server has said since that its list changed; else nothing.
  std::optional<std::vector<std::unique_ptr<Tool>>> changed_tools(
      const std::shared_ptr<McpServer>& self, const std::function<void(std::string_view)>& note);
  const std::string& name() const noexcept;
  std::string_view revision() const noexcept;  // empty before the server was asked

  // A call. A server that ended is started again at the next call, once.
  ToolResult call(const std::string& tool, const OrderedJson& arguments,
                  const CallContext& context);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// "NAME=TARGET" of a command line; adds its tools, also those that come later (Toolbox::refresh).
// `note` is told what is left out, and is kept. Throws Misused for what is no such
// text.
void add_mcp_server(const std::string& text, Toolbox& tools,
                    const std::function<void(std::string_view)>& note);

// Words of a command line: blanks part them, '...' and "..." hold them together, \ takes the next
// character as it is. Throws Misused for an open quote.
std::vector<std::string> command_words(std::string_view text);

}  // namespace quern
