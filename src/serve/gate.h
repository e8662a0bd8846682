// The one gate that every request passes before anything else looks at it: Host, Origin, key, kind
// of body, and how much the key may ask for. No route is open beside it; the web pages' own files
// and /health alone need no key.
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
KeyHash hash_key(std::string_view key);

struct Key {
  KeyHash hash{};
  int per_minute = 0;  // requests with a body; 0: any number
  int at_once = 0;     // of them under way; 0: any number
  bool admin = false;  // may use /admin/
};

// A file of keys, one a line: the key itself, or "sha256:" and its hash in hexadecimal; behind it,
// if need be, "per-minute=60", "at-once=4" and "admin". Empty lines and those that begin with # don't count.
// Throws BadInput naming the line.
std::vector<Key> read_keys(const fs::path& file);

struct GateOptions {
  std::vector<Key> keys;             // empty: no key is needed
  std::vector<std::string> hosts;    // names that Host may have beside localhost and IP addresses
  std::vector<std::string> origins;  // of pages beside our own that may use this server
  bool health_key = false;           // /health needs a key, too
  int failures_per_minute = 10;      // wrong keys of one address
};

class Gate {
 public:
  Gate(GateOptions options, Metrics& metrics);

  // The admission's place must not outlive the gate.
  Admission check(const HttpRequest& head);

  // Tells callers apart whose prompts must not share a cache: the hash of the key, in hexadecimal;
  // empty where no keys are needed.
  std::string salt(const HttpRequest& request) const;

 private:
  using Times = std::deque<std::chrono::steady_clock::time_point>;
  struct Usage {
    Times begun;  // in the last minute, where that is limited
    int under_way = 0;
  };

  Admission check_admitted(const HttpRequest& head);
  bool origin_allowed(const HttpRequest& head, bool& foreign) const;
  Admission refuse(int status, const char* why, std::string message, std::string code = {},
                   std::optional<int> retry_after_s = {});
  bool host_allowed(std::string_view host) const;
  std::optional<size_t> find_key(std::string_view key) const;
  bool too_many_failures(const std::string& address);
  Admission take_place(size_t key);

  GateOptions options_;
  Metrics& metrics_;
  std::mutex mutex_;
  std::map<std::string, Times> failures_;
  std::vector<Usage> usage_;  // of each key
};

}  // namespace quern::serve
