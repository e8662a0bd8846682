// Asking HTTP servers, on libcurl: whole answers, bodies as they come, and streams of server-sent
// events, over TCP, TLS, a proxy or a Unix socket. One thread runs any number of connections, which
// are kept for the next call. No libcurl shows here.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/file.h"
#include "net/address_policy.h"

namespace quern::net {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct ClientOptions {
  // "http://HOST[:PORT][/PATH]", "https://...", or "unix:SOCKET"; calls name what is behind it.
  // Empty: each call names an address of its own.
  std::string url;
  std::string api_key;  // sent as a bearer token to the address above alone; empty: none
  HttpHeaders headers;  // of every call
  fs::path trusted;     // certificates in PEM form beside the system's
  // "http://HOST:PORT", "https://..." or "socks5h://..."; empty: none; absent: as http_proxy,
  // https_proxy, all_proxy and no_proxy say, but never for this machine itself.
  std::optional<std::string> proxy;
  AddressPolicy policy;
  int max_redirects = 5;                        // 0: a redirect is an answer like any other
  uint64_t max_body_bytes = uint64_t{1} << 30;  // of an answer kept in memory, and of one event
  double connect_seconds = 10;                  // to look up, connect and agree on TLS
  double silence_seconds = 600;                 // without a byte of an answer
  double total_seconds = 0;                     // for a whole call; 0: no limit
};

struct HttpReply {
  int status = 0;       // 0: there was none, `failure` says why
  HttpHeaders headers;  // names in lower case
  std::string body;     // without what went to on_data or on_event
  std::string failure;  // one line; empty for an answer that is whole
  std::string url;      // that answered, after redirects

  std::string_view header(std::string_view name) const noexcept;
  bool ok() const noexcept { return failure.empty() && status >= 200 && status < 300; }
  // One line on what went wrong: the server's own words where it gave some, as
  // {"error": {"message": ...}}, {"error": ...}, {"message": ...}, {"detail": ...} or plain text.
  std::string problem() const;
  // The wait that the server asks for (Retry-After in seconds), at most `most`.
  double retry_after(double fallback, double most) const;
};

struct HttpCall {
  std::string method;  // empty: GET, or POST where there is a body
  std::string path;    // behind the client's address, or an absolute address
  std::string body;    // JSON, unless a Content-Type header says other
  HttpHeaders headers;
  uint64_t resume_from = 0;            // asks for the bytes from here on; see `status`: 206 or 200
  std::chrono::milliseconds pause{0};  // waited before it is made
  // A whole head, before its body; redirects that are followed don't come here. False: enough.
  std::function<bool(const HttpReply& head)> on_head;
  // The bytes of a successful answer as they come. False: enough.
  std::function<bool(std::string_view bytes)> on_data;
  // The data of each event of a stream as it comes. False: enough.
  std::function<bool(std::string_view data)> on_event;
  // With the whole answer. "Enough" is none of its failures: the connection is just closed.
  std::function<void(HttpReply reply)> done;
};

class HttpClient {
 public:
  // Throws Misused for an address that is none, or a proxy beside a policy; BadInput for
  // certificates that can't be read.
  explicit HttpClient(ClientOptions options);
  ~HttpClient();
  HttpClient(HttpClient&&) noexcept;

  const std::string& url() const noexcept;

  // One call, waited for. `cancel` is looked at all the time; its reply then has a failure.
  // Throws Misused for an absolute address that is none, and what callbacks throw.
  HttpReply send(HttpCall call, const std::atomic<bool>* cancel = nullptr);

  // Makes calls as long as `next` gives them, `connections` at a time, each of them over one
  // connection after another's answer. All callbacks come on this thread.
  void run(int connections, const std::function<std::optional<HttpCall>()>& next,
           const std::atomic<bool>* cancel = nullptr);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quern::net
