// A server in this process and clients over real sockets.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "serve/server.h"
#include "support/support.h"

namespace quern::test {

using nlohmann::json;

// A small chat model with random weights and a vocabulary of single bytes, made once.
fs::path tiny_model();

// A tokenizer.json whose tokens are the 256 bytes, by the names that byte-level BPE gives them, and
// special ones behind them.
std::string byte_tokenizer_json(const std::vector<std::string>& specials = {});

struct Answer {
  int status = 0;                              // 0: the connection ended without one
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks put together
  json parsed() const { return json::parse(body); }
  // The data of server-sent events, [DONE] included.
  std::vector<std::string> events() const;
};

// One connection.
class Client {
 public:
  explicit Client(uint16_t port, int receive_buffer = 0);
  explicit Client(const fs::path& unix_socket);
  ~Client();
  Client(Client&& other) noexcept;
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // False when the other side has closed.
  bool send(std::string_view bytes);
  // What comes until `text` is in it, the end, or the timeout.
  std::string read_until(std::string_view text, int timeout_ms = 10'000);
  // True when the server closes within the time.
  bool closed_within(int timeout_ms);
  Answer answer(int timeout_ms = 30'000);
  void shutdown_send();
  void close(bool reset = false);

 private:
  bool more(int timeout_ms);
  int socket_ = -1;
  std::string input_;
};

using Headers = std::vector<std::pair<std::string, std::string>>;
std::string request_text(std::string_view method, std::string_view path, std::string_view body,
                         const Headers& headers = {});

class TestServer {
 public:
  explicit TestServer(serve::ServeOptions options = {});
  ~TestServer();

  uint16_t port() const { return port_; }
  Client connect() const { return Client(port_); }
  Answer get(std::string_view path, const Headers& headers = {}) const;
  Answer post(std::string_view path, const json& body, const Headers& headers = {}) const;
  Answer post_text(std::string_view path, std::string_view body, const Headers& headers = {}) const;
  // The sum of a metric over its labels.
  double metric(const std::string& name) const;
  // Waits until a metric has a value; false after ten seconds.
  bool wait_for(const std::string& name, double value) const;
  void stop();

 private:
  std::unique_ptr<serve::Server> server_;
  uint16_t port_ = 0;
  std::thread thread_;
};

// Options of a server with the tiny model and no log.
serve::ServeOptions tiny_options();

json user(const std::string& text);  // a conversation of one message

}  // namespace quern::test
