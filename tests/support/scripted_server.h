// A server on a free port of this machine whose answers a test writes byte by byte: it can cut,
// drip, lie about lengths, redirect, and count what it was asked.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace quern::test {

struct ServedRequest {
  std::string method, target;                  // target: path and query
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

// The connection that a request came over.
class ServedConnection {
 public:
  explicit ServedConnection(int socket) : socket_(socket) {}

  // False when the client has gone.
  bool send(std::string_view bytes);
  // A byte at a time, with a pause after each.
  bool drip(std::string_view bytes, int pause_ms);
  // A whole answer with its right length; the connection is kept.
  void answer(int status, std::string_view body, std::string_view type = "text/plain",
              std::string_view more_headers = {});
  // The file's bytes, or the part of them that a Range header asks for, as a hub does it.
  void answer_file(const ServedRequest& request, std::string_view content,
                   std::string_view more_headers = {});
  // The connection ends after this request.
  void close() { open_ = false; }
  bool open() const { return open_; }

 private:
  int socket_;
  bool open_ = true;
};

class ScriptedServer {
 public:
  using Handler = std::function<void(const ServedRequest& request, ServedConnection& connection)>;
  explicit ScriptedServer(Handler handler);
  ~ScriptedServer();
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;

  uint16_t port() const { return port_; }
  std::string url(std::string_view path = {}) const;
  std::vector<ServedRequest> requests() const;

 private:
  void serve(int socket);

  Handler handler_;
  int listener_ = -1;
  uint16_t port_ = 0;
  std::thread acceptor_;
  mutable std::mutex mutex_;
  std::vector<std::thread> workers_;
  std::vector<int> sockets_;
  std::vector<ServedRequest> requests_;
};

}  // namespace quern::test
