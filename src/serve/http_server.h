// The network side: connections, deadlines and limits. One thread runs all connections as
// coroutines, so a slow client costs memory and nothing else; the parser is Boost.Beast's.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/file.h"
#include "serve/http.h"

namespace quern::serve {

struct HttpLimits {
  uint32_t header_bytes = 16 << 10;
  size_t header_lines = 100;
  uint64_t body_bytes = 8 << 20;
  int connections = 4096;
  int connections_per_address = 256;  // local ones are not counted
  size_t unsent_bytes = 256 << 10;    // of a stream whose client does not read: it is cancelled
  std::chrono::milliseconds idle{75'000};   // between requests
  std::chrono::milliseconds header{5'000};  // from a request's first byte to its head's end
  std::chrono::milliseconds body{10'000};   // and a second more for each MB
  std::chrono::milliseconds write{30'000};  // a client that takes nothing for so long has left
  std::chrono::milliseconds ping{15'000};   // of a stream with nothing to say
  std::chrono::milliseconds drain{30'000};  // for requests at work when the server ends
};

// What the access log says of one request.
struct AccessRecord {
  std::string id, remote, method, path;
  int status = 0;  // 0: the client left before an answer
  uint64_t bytes = 0;
  double seconds = 0;
  std::vector<std::pair<std::string, std::string>> notes;  // of Exchange::note
};

struct HttpOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8080;      // 0: a free one
  fs::path unix_socket;      // instead of host and port
  fs::path tls_certificate;  // PEM chain; with tls_key
  fs::path tls_key;
  HttpLimits limits;

  // The gate: looks at a request's head before its body is read.
  std::function<Admission(const HttpRequest& head)> gate;
  // A request whose body is there. Called on the network's thread: what takes time goes elsewhere.
  std::function<void(std::shared_ptr<Exchange> exchange)> handle;
  std::function<HttpResponse(int status, const std::string& message)> error;
  std::function<void(const AccessRecord& record)> log;  // may be empty
  std::function<void()> tick;                           // about once a second; may be empty
  std::function<void()> on_drain;                       // the end has begun; may be empty
};

class HttpServer {
 public:
  // Listens. Throws Failed naming address and reason, BadInput for a bad certificate.
  explicit HttpServer(HttpOptions options);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // "http://127.0.0.1:8080", or "unix:PATH".
  std::string url() const;
  uint16_t port() const;

  // Serves until SIGTERM, SIGINT or stop(): then new connections are refused, requests at work come
  // to their end within limits.drain, and run() returns. A second signal ends at once.
  void run();
  void stop();  // from any thread

  int connections() const noexcept;  // from any thread

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quern::serve
