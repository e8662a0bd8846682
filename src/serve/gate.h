// The one gate that every request passes before anything else looks at it: Host, Origin, key, kind
// of body. No route is open beside it; the web pages' own files alone need no key.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "serve/http.h"
#include "serve/metrics.h"

namespace quern::serve {

using KeyHash = std::array<uint8_t, 32>;  // SHA-256

// A file of keys, one a line: the key itself, or "sha256:" and its hash in hexadecimal. Empty lines
// and those that begin with # don't count. Throws BadInput naming the line.
std::vector<KeyHash> read_keys(const fs::path& file);
KeyHash hash_key(std::string_view key);

struct GateOptions {
  std::vector<KeyHash> keys;       // empty: no key is needed
  std::vector<std::string> hosts;  // names that Host may have beside localhost and IP addresses
  int failures_per_minute = 10;    // wrong keys of one address
};

class Gate {
 public:
  Gate(GateOptions options, Metrics& metrics);

  // An answer refuses the request.
  std::optional<HttpResponse> check(const HttpRequest& head);

  // Tells callers apart whose prompts must not share a cache: the hash of the key, in hexadecimal;
  // empty where no keys are needed.
  std::string salt(const HttpRequest& request) const;

 private:
  bool host_allowed(std::string_view host) const;
  bool key_known(std::string_view key) const;
  bool too_many_failures(const std::string& address);

  GateOptions options_;
  Metrics& metrics_;
  std::mutex mutex_;
  std::map<std::string, std::deque<std::chrono::steady_clock::time_point>> failures_;
};

}  // namespace quern::serve
