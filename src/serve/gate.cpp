#include "serve/gate.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <charconv>
#include <span>

#include "core/ascii.h"
#include "core/error.h"
#include "serve/api_error.h"
#include "serve/web_page.h"

namespace quern::serve {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::minutes kMinute{1};
constexpr size_t kMostAddresses = 10'000;  // whose failures are remembered
constexpr int kMostPerMinute = 1'000'000;  // requests of a key, whose times are remembered

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  while (!(line = trim(line)).empty()) {
    words.push_back(line.substr(0, line.find_first_of(" \t")));
    line.remove_prefix(words.back().size());
  }
  return words;
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

// The key of "Authorization: Bearer KEY", or of Anthropic's X-Api-Key; empty where there is none.
std::string_view bearer(const HttpRequest& request) {
  if (request.count("authorization") == 0 && request.count("x-api-key") == 1) {
    return trim(request.header("x-api-key"));
  }
  if (request.count("authorization") != 1) return {};
  const std::string_view value = request.header("authorization");
  if (ascii_lower(value.substr(0, 7)) != "bearer ") return {};
  return trim(value.substr(7));
}

// Forgets what is older than a minute.
int count_last_minute(std::deque<Clock::time_point>& times, Clock::time_point now) {
  while (!times.empty() && times.front() <= now - kMinute) times.pop_front();
  return static_cast<int>(times.size());
}

// A line of a file of keys; `where` names it.
Key parse_key(std::string_view line, const std::string& where) {
  const auto bad = [&](const std::string& what) {
    throw_bad_input(where + ": " + what,
                    "expected a key, or sha256: and 64 hexadecimal digits, and if need be "
                    "per-minute=N, at-once=N and admin behind it");
  };
  const std::vector<std::string_view> words = words_of(line);
  Key key;
  constexpr std::string_view kHashed = "sha256:";
  if (words[0].starts_with(kHashed)) {
    const std::string digits = ascii_lower(words[0].substr(kHashed.size()));
    if (digits.size() != 64 || digits.find_first_not_of("0123456789abcdef") != digits.npos) {
      bad("is no SHA-256");
    }
    for (size_t i = 0; i < key.hash.size(); ++i) {
      key.hash[i] = static_cast<uint8_t>(std::stoul(digits.substr(2 * i, 2), nullptr, 16));
    }
  } else {
    if (words[0].size() < 16) bad("has fewer than 16 characters");
    if (std::ranges::any_of(words[0], [](char c) { return c <= 0x20 || c >= 0x7F; })) {
      bad("has a character that no header can carry");
    }
    key.hash = hash_key(words[0]);
  }
  for (const std::string_view word : std::span(words).subspan(1)) {
    if (word == "admin") {
      key.admin = true;
      continue;
    }
    const size_t equals = std::min(word.find('='), word.size());
    const std::string_view name = word.substr(0, equals);
    int* limit = name == "per-minute" ? &key.per_minute
                 : name == "at-once"  ? &key.at_once
                                      : nullptr;
    if (limit == nullptr) bad(fmt::format("'{}' is no limit", printable(word, 40)));
    const std::string_view digits = word.substr(std::min(equals + 1, word.size()));
    const char* end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, *limit);
    if (error != std::errc() || stop != end || *limit < 1 || *limit > kMostPerMinute) {
      bad(fmt::format("'{}' must be a number from 1 to {}", printable(word, 40), kMostPerMinute));
    }
  }
  return key;
}

}  // namespace

KeyHash hash_key(std::string_view key) {
  KeyHash hash{};
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), hash.data());
  return hash;
}

std::vector<Key> read_keys(const fs::path& file) {
  const std::string text = read_file(file, 1 << 20);
  std::vector<Key> keys;
  size_t number = 0;
  for (size_t begin = 0; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = trim(std::string_view(text).substr(begin, end - begin));
    begin = end + 1;
    if (line.empty() || line.starts_with('#')) continue;
    const std::string where = fmt::format("{}: line {}", file.string(), number + 1);
    const Key key = parse_key(line, where);
    if (std::ranges::find(keys, key.hash, &Key::hash) != keys.end()) {
      throw_bad_input(where + ": the key is there already", "take one of the two lines out");
    }
    keys.push_back(key);
  }
  if (keys.empty()) throw_bad_input(file.string() + ": has no key");
  return keys;
}

Gate::Gate(GateOptions options, Metrics& metrics)
    : options_(std::move(options)), metrics_(metrics), usage_(options_.keys.size()) {
  for (std::string& host : options_.hosts) host = ascii_lower(host);
  for (std::string& origin : options_.origins) {
    origin = ascii_lower(origin);
    while (origin.ends_with('/')) origin.pop_back();
  }
}

// A page of another site can make a browser send requests here by a name of its own (DNS
// rebinding); it cannot do so by an address, nor by a name that only this machine resolves.
bool Gate::host_allowed(std::string_view host) const {
  std::string name = ascii_lower(without_port(host));
  if (name.ends_with('.')) name.pop_back();
  return name == "localhost" || is_address(name) ||
         std::ranges::find(options_.hosts, name) != options_.hosts.end();
}

// Every key is looked at, and each in the same time, so that the clock tells nothing.
std::optional<size_t> Gate::find_key(std::string_view key) const {
  const KeyHash hash = hash_key(key);
  size_t found = 0;  // one more than its place
  for (size_t i = 0; i < options_.keys.size(); ++i) {
    const KeyHash& known = options_.keys[i].hash;
    const auto equal =
        static_cast<size_t>(CRYPTO_memcmp(known.data(), hash.data(), hash.size()) == 0);
    found += equal * (i + 1);  // no key is there twice
  }
  return found == 0 ? std::nullopt : std::optional(found - 1);
}

bool Gate::too_many_failures(const std::string& address) {
  const std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  if (failures_.size() >= kMostAddresses) {
    std::erase_if(failures_,
                  [&](const auto& entry) { return entry.second.back() < now - kMinute; });
    if (failures_.size() >= kMostAddresses) failures_.clear();
  }
  auto& times = failures_[address];
  if (count_last_minute(times, now) >= options_.failures_per_minute) return true;
  times.push_back(now);
  return false;
}

// Takes a place among the requests of a key, as its limits allow.
Admission Gate::take_place(size_t key) {
  const Key& limits = options_.keys[key];
  if (limits.per_minute == 0 && limits.at_once == 0) return {};
  const auto now = Clock::now();
  std::optional<int> wait_s;
  {
    const std::lock_guard lock(mutex_);
    Usage& usage = usage_[key];
    if (limits.per_minute > 0 && count_last_minute(usage.begun, now) >= limits.per_minute) {
      wait_s = static_cast<int>(
          std::chrono::ceil<std::chrono::seconds>(usage.begun.front() + kMinute - now).count());
    } else if (limits.at_once == 0 || usage.under_way < limits.at_once) {
      if (limits.per_minute > 0) usage.begun.push_back(now);
      ++usage.under_way;
      return {.place = std::shared_ptr<void>(nullptr, [this, key](void*) {
                const std::lock_guard again(mutex_);
                --usage_[key].under_way;
              })};
    }
  }
  if (wait_s) {
    return refuse(429, "key_limit",
                  fmt::format("the key may make {} requests a minute", limits.per_minute),
                  "too_many_requests", wait_s);
  }
  return refuse(429, "key_limit",
                fmt::format("the key may have {} requests under way", limits.at_once),
                "too_many_requests", 1);
}

std::string Gate::salt(const HttpRequest& request) const {
  if (options_.keys.empty()) return {};
  std::string text;
  for (const uint8_t byte : hash_key(bearer(request))) text += fmt::format("{:02x}", byte);
  return text;
}

Admission Gate::refuse(int status, const char* why, std::string message, std::string code,
                       std::optional<int> retry_after_s) {
  metrics_.count_refusal(why);
  ApiError error = error_of_status(status, std::move(message));
  error.code = std::move(code);
  error.retry_after_s = retry_after_s;
  if (status == 401) error.type = "authentication_error";
  if (status == 429) error.type = "rate_limit_error";
  return {.refusal = error_response(error), .place = {}, .headers = {}};
}

Admission Gate::check(const HttpRequest& head) {
  if (head.count("host") > 1) return refuse(400, "host", "the request has more than one Host");
  const std::string_view host = head.header("host");
  if (host.empty()) {
    if (!head.http_1_0) return refuse(400, "host", "the request has no Host");
  } else if (head.remote != "unix" && !host_allowed(host)) {
    return refuse(403, "host",
                  fmt::format("the Host '{}' is not served here; --allowed-host adds names",
                              printable(host, 80)));
  }
  bool foreign = false;
  if (!origin_allowed(head, foreign)) {
    return refuse(403, "origin",
                  "pages of other sites may not use this server; --allow-origin adds some");
  }
  Admission admission;
  if (foreign && head.method == "OPTIONS") {
    // A browser asks before it sends what a page could not send on its own.
    HttpResponse may;
    may.status = 204;
    may.headers = {{"Access-Control-Allow-Methods", "GET, POST"},
                   {"Access-Control-Allow-Headers",
                    "Authorization, Content-Type, X-Api-Key, Anthropic-Version, X-Stainless-*"},
                   {"Access-Control-Max-Age", "600"}};
    const std::string_view wanted = head.header("access-control-request-headers");
    const bool plain = std::ranges::all_of(wanted, [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             c == '-' || c == ',' || c == ' ';
    });
    if (plain && !wanted.empty()) may.headers[1].second = wanted;
    admission.refusal = std::move(may);
  } else {
    admission = check_admitted(head);
  }
  if (foreign) {
    admission.headers = {{"Access-Control-Allow-Origin", std::string(head.header("origin"))},
                         {"Access-Control-Expose-Headers", "X-Request-Id, X-Quern-Ignored"},
                         {"Vary", "Origin"}};
  }
  return admission;
}

// Our own pages, and those that are named.
bool Gate::origin_allowed(const HttpRequest& head, bool& foreign) const {
  if (head.count("origin") == 0) return true;
  const std::string origin = ascii_lower(head.header("origin"));
  const std::string own = ascii_lower(head.header("host"));
  if (!own.empty() && (origin == "http://" + own || origin == "https://" + own)) return true;
  foreign = true;
  const auto named = [&](const std::string& one) { return one == "*" || one == origin; };
  return head.count("origin") == 1 && std::ranges::any_of(options_.origins, named);
}

Admission Gate::check_admitted(const HttpRequest& head) {
  // A browser has no key to show before it has the page that asks for one. The page is the same for
  // everybody and says nothing about this server.
  const bool page = (head.method == "GET" || head.method == "HEAD") && find_web_file(head.path);
  // Whoever watches over the server has no key either, and learns nothing else.
  const bool health = head.path == "/health" && !options_.health_key;
  const bool needs_key = !options_.keys.empty() && !page && !health;
  const std::optional<size_t> key = needs_key ? find_key(bearer(head)) : std::nullopt;
  if (needs_key && !key) {
    if (too_many_failures(head.remote)) {
      return refuse(429, "key", "too many wrong keys", "too_many_wrong_keys", 60);
    }
    const bool none = head.count("authorization") == 0;
    return refuse(
        401, "key",
        none ? "the request has no key; send 'Authorization: Bearer KEY'" : "the key is wrong",
        none ? "missing_api_key" : "invalid_api_key");
  }
  if (head.path.starts_with("/admin/") && !(key && options_.keys[*key].admin)) {
    return refuse(403, "key",
                  "this needs an admin's key: one with 'admin' behind it in --api-key-file",
                  "admin_key_needed");
  }
  const std::string coding = ascii_lower(head.header("content-encoding"));
  if (!coding.empty() && coding != "identity") {
    return refuse(415, "encoding", "compressed bodies are not read; send it as it is");
  }
  if (head.method == "POST") {
    const std::string_view type = head.header("content-type");
    if (ascii_lower(trim(type.substr(0, type.find(';')))) != "application/json") {
      return refuse(415, "media_type", "the body must be JSON: Content-Type: application/json");
    }
    if (key) return take_place(*key);
  }
  return {};
}

}  // namespace quern::serve
