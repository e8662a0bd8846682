// Asking HTTP servers: whole answers and streams of server-sent events, over TCP, TLS or a local
// socket. One thread runs any number of connections. No library of the network shows here.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/file.h"

namespace quern::serve {

struct ClientOptions {
  std::string url;               // "http://HOST[:PORT][/PATH]", "https://...", or "unix:SOCKET"
  std::string api_key;           // empty: none is sent
  fs::path trusted;              // certificates in PEM form beside the system's
  double connect_seconds = 10;   // to connect, and to agree on TLS
  double silence_seconds = 600;  // without a byte of an answer
};

struct HttpReply {
  int status = 0;  // 0: there was none, `failure` says why
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;     // without the data that went to on_event
  std::string failure;  // empty for an answer that is whole

  std::string_view header(std::string_view name) const noexcept;
  bool ok() const noexcept { return failure.empty() && status >= 200 && status < 300; }
  // One line on what went wrong: the server's own message where it gave one.
  std::string problem() const;
};

struct HttpCall {
  std::string method = "POST";
  std::string path;                    // behind the address's own
  std::string body;                    // JSON
  std::chrono::milliseconds pause{0};  // waited before it is made
  // Of an event stream: the data of each event as it comes. False: that is enough, and the
  // connection is closed.
  std::function<bool(std::string_view data)> on_event;
  std::function<void(HttpReply reply)> done;
};

// Server-sent events out of bytes as they come.
class EventReader {
 public:
  // Calls `on_event` with the data of each event that is whole; stops when it returns false, and
  // then returns false.
  bool put(std::string_view bytes, const std::function<bool(std::string_view data)>& on_event);

 private:
  std::string line_, data_;
  bool has_data_ = false;
};

class HttpClient {
 public:
  // Throws Misused for an address that is none, BadInput for certificates that cannot be read.
  explicit HttpClient(ClientOptions options);
  ~HttpClient();

  const std::string& url() const noexcept;

  // One call, waited for. `cancel` is looked at all the time; its reply then has a failure.
  HttpReply send(HttpCall call, const std::atomic<bool>* cancel = nullptr);

  // Makes calls as long as `next` gives them, `connections` at a time, each of them over one
  // connection after another's answer. All callbacks come on this thread.
  void run(int connections, const std::function<std::optional<HttpCall>()>& next,
           const std::atomic<bool>* cancel = nullptr);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quern::serve
