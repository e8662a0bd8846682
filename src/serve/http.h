// HTTP as the server's handlers see it: a request, and an exchange through which its answer goes.
// No library of the network shows here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quern::serve {

struct HttpRequest {
  std::string method;
  std::string path;   // as sent, nothing decoded, without the query
  std::string query;  // behind '?'
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
  std::string remote;  // address of the client; "unix" for a local socket
  std::string id;      // X-Request-Id of the answer
  bool http_1_0 = false;
  // What the gate adds to the answer's headers.
  std::vector<std::pair<std::string, std::string>> answer_headers;

  // The header's value; empty where it is absent. `name` in lower case.
  std::string_view header(std::string_view name) const noexcept;
  size_t count(std::string_view name) const noexcept;
};

struct HttpResponse {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
};

// What a look at a request's head came to.
struct Admission {
  std::optional<HttpResponse> refusal;
  std::shared_ptr<void> place;                               // held until the answer is sent
  std::vector<std::pair<std::string, std::string>> headers;  // of the answer, whatever it is
};

std::string_view reason_phrase(int status) noexcept;

// One request and the way its answer goes. Every method may be called from any thread; what is
// written after the client has left is dropped.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const HttpRequest& request() const noexcept = 0;

  // The whole answer. Only the first counts.
  virtual void respond(HttpResponse response) = 0;

  // The answer will be a stream of server-sent events that begins with `head`, which is sent with
  // the first write(), or before that with a ping to a client that waits long. Until then
  // respond() can still answer otherwise.
  virtual void prepare_stream(HttpResponse head) = 0;
  virtual bool begun() const = 0;
  virtual void write(std::string_view text) = 0;
  virtual void finish() = 0;

  // `left` is called once, on the network's thread, if the client leaves before the answer's end;
  // at once if it has left already.
  virtual void on_close(std::function<void()> left) = 0;

  // A field of the access log's line: `json` is its value as JSON text.
  virtual void note(std::string name, std::string json) = 0;

 protected:
  Exchange() = default;
};

}  // namespace quern::serve
