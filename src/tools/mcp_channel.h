// How JSON-RPC messages reach an MCP server and come back: lines on a program's standard input and
// output, or streamable HTTP.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quern {

struct McpWait {
  std::chrono::steady_clock::time_point until;
  const std::atomic<bool>* cancel = nullptr;
};

// What a server does that no request can be answered after: it ended, or what it sends is no
// protocol. `late`: it just has not answered.
struct McpBroken {
  std::string problem;
  bool late = false;
  int status = 0;  // of an HTTP answer that refuses
};

class McpChannel {
 public:
  using OnMessage = std::function<bool(std::string_view message)>;  // true: that was the last
  virtual ~McpChannel() = default;

  // Sends a request and gives what comes to `on_message` until it says enough. Throws McpBroken.
  virtual void ask(const std::string& request, const McpWait& wait,
                   const OnMessage& on_message) = 0;
  // Sends what no answer is waited for. Throws McpBroken.
  virtual void tell(const std::string& message, const McpWait& wait) = 0;
  // Headers of HTTP for the messages to come; nothing elsewhere.
  virtual void set_headers(std::vector<std::pair<std::string, std::string>> headers) = 0;
  virtual bool is_http() const = 0;
};

// Starts the program. Throws BadInput where it cannot be run.
std::unique_ptr<McpChannel> start_mcp_program(const std::vector<std::string>& command);
std::unique_ptr<McpChannel> reach_mcp_server(const std::string& url);

}  // namespace quern
