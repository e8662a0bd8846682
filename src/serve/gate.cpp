#include "serve/gate.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>

#include "core/error.h"
#include "serve/api_error.h"
#include "serve/web_page.h"

namespace quern::serve {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kMostAddresses = 10'000;  // whose failures are remembered

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return out;
}

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

// "example.org:8080" and "[::1]:8080" without the port.
std::string_view without_port(std::string_view host) {
  if (host.starts_with('[')) {
    const size_t end = host.find(']');
    return end == host.npos ? host : host.substr(1, end - 1);
  }
  return host.substr(0, host.find(':'));
}

bool is_address(const std::string& host) {
  in6_addr ignored{};
  return ::inet_pton(AF_INET, host.c_str(), &ignored) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), &ignored) == 1;
}

// The key of "Authorization: Bearer KEY"; empty where there is none.
std::string_view bearer(const HttpRequest& request) {
  if (request.count("authorization") != 1) return {};
  const std::string_view value = request.header("authorization");
  if (lower(value.substr(0, 7)) != "bearer ") return {};
  return trim(value.substr(7));
}

}  // namespace

KeyHash hash_key(std::string_view key) {
  KeyHash hash{};
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), hash.data());
  return hash;
}

std::vector<KeyHash> read_keys(const fs::path& file) {
  const std::string text = read_file(file, 1 << 20);
  std::vector<KeyHash> keys;
  size_t number = 0;
  for (size_t begin = 0; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = trim(std::string_view(text).substr(begin, end - begin));
    begin = end + 1;
    if (line.empty() || line.starts_with('#')) continue;
    const auto bad = [&](const char* what) {
      throw_bad_input(fmt::format("{}: line {}: {}", file.string(), number + 1, what),
                      "expected a key, or sha256: and 64 hexadecimal digits");
    };
    constexpr std::string_view kHashed = "sha256:";
    if (line.starts_with(kHashed)) {
      const std::string digits = lower(line.substr(kHashed.size()));
      KeyHash hash{};
      if (digits.size() != 64 || digits.find_first_not_of("0123456789abcdef") != digits.npos) {
        bad("is no SHA-256");
      }
      for (size_t i = 0; i < hash.size(); ++i) {
        hash[i] = static_cast<uint8_t>(std::stoul(digits.substr(2 * i, 2), nullptr, 16));
      }
      keys.push_back(hash);
    } else {
      if (line.size() < 16) bad("has fewer than 16 characters");
      if (std::ranges::any_of(line, [](char c) { return c <= 0x20 || c >= 0x7F; })) {
        bad("has a character that no header can carry");
      }
      keys.push_back(hash_key(line));
    }
  }
  if (keys.empty()) throw_bad_input(file.string() + ": has no key");
  return keys;
}

Gate::Gate(GateOptions options, Metrics& metrics)
    : options_(std::move(options)), metrics_(metrics) {
  for (std::string& host : options_.hosts) host = lower(host);
}

// A page of another site can make a browser send requests here by a name of its own (DNS
// rebinding); it cannot do so by an address, nor by a name that only this machine resolves.
bool Gate::host_allowed(std::string_view host) const {
  std::string name = lower(without_port(host));
  if (name.ends_with('.')) name.pop_back();
  return name == "localhost" || is_address(name) ||
         std::ranges::find(options_.hosts, name) != options_.hosts.end();
}

// Every key is looked at, and each in the same time, so that the clock tells nothing.
bool Gate::key_known(std::string_view key) const {
  const KeyHash hash = hash_key(key);
  int found = 0;
  for (const KeyHash& known : options_.keys) {
    found |= static_cast<int>(CRYPTO_memcmp(known.data(), hash.data(), hash.size()) == 0);
  }
  return found != 0;
}

bool Gate::too_many_failures(const std::string& address) {
  const std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  const auto old = now - std::chrono::minutes(1);
  if (failures_.size() >= kMostAddresses) {
    std::erase_if(failures_, [&](const auto& entry) { return entry.second.back() < old; });
    if (failures_.size() >= kMostAddresses) failures_.clear();
  }
  auto& times = failures_[address];
  while (!times.empty() && times.front() < old) times.pop_front();
  if (static_cast<int>(times.size()) >= options_.failures_per_minute) return true;
  times.push_back(now);
  return false;
}

std::string Gate::salt(const HttpRequest& request) const {
  if (options_.keys.empty()) return {};
  std::string text;
  for (const uint8_t byte : hash_key(bearer(request))) text += fmt::format("{:02x}", byte);
  return text;
}

std::optional<HttpResponse> Gate::check(const HttpRequest& head) {
  const auto refuse = [&](int status, const char* why, std::string message, std::string code = {},
                          std::optional<int> retry = {}) {
    metrics_.count_refusal(why);
    ApiError error = error_of_status(status, std::move(message));
    error.code = std::move(code);
    error.retry_after_s = retry;
    if (status == 401) error.type = "authentication_error";
    if (status == 429) error.type = "rate_limit_error";
    return error_response(error);
  };
  if (head.count("host") > 1) return refuse(400, "host", "the request has more than one Host");
  const std::string_view host = head.header("host");
  if (host.empty()) {
    if (!head.http_1_0) return refuse(400, "host", "the request has no Host");
  } else if (head.remote != "unix" && !host_allowed(host)) {
    return refuse(403, "host",
                  fmt::format("the Host '{}' is not served here; --allowed-host adds names",
                              printable(host, 80)));
  }
  if (head.count("origin") > 0) {
    const std::string origin = lower(head.header("origin"));
    const std::string own = lower(host);
    if (own.empty() || (origin != "http://" + own && origin != "https://" + own)) {
      return refuse(403, "origin", "pages of other sites may not use this server");
    }
  }
  // A browser has no key to show before it has the page that asks for one. The page is the same for
  // everybody and says nothing about this server.
  const bool page = (head.method == "GET" || head.method == "HEAD") && find_web_file(head.path);
  if (!options_.keys.empty() && !page && !key_known(bearer(head))) {
    if (too_many_failures(head.remote)) {
      return refuse(429, "key", "too many wrong keys", "too_many_wrong_keys", 60);
    }
    const bool none = head.count("authorization") == 0;
    return refuse(
        401, "key",
        none ? "the request has no key; send 'Authorization: Bearer KEY'" : "the key is wrong",
        none ? "missing_api_key" : "invalid_api_key");
  }
  const std::string coding = lower(head.header("content-encoding"));
  if (!coding.empty() && coding != "identity") {
    return refuse(415, "encoding", "compressed bodies are not read; send it as it is");
  }
  if (head.method == "POST") {
    const std::string_view type = head.header("content-type");
    if (lower(trim(type.substr(0, type.find(';')))) != "application/json") {
      return refuse(415, "media_type", "the body must be JSON: Content-Type: application/json");
    }
  }
  return std::nullopt;
}

}  // namespace quern::serve
