#include "net/url.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "core/ascii.h"
#include "core/error.h"

namespace quern::net {
namespace {

using Handle = std::unique_ptr<CURLU, decltype(&curl_url_cleanup)>;

[[noreturn]] void refuse(std::string_view text, std::string_view what, const char* hint) {
  throw Error(Kind::Misused, fmt::format("{} is '{}'", what, printable(text, 200)), hint);
}

constexpr const char* kExpected =
    "expected http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]";

std::string part(CURLU* handle, CURLUPart which, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(handle, which, &text, flags) != CURLUE_OK || text == nullptr) return {};
  std::string out(text);
  curl_free(text);
  return out;
}

Url from_handle(CURLU* handle, std::string_view text, std::string_view what) {
  Url url;
  url.scheme = part(handle, CURLUPART_SCHEME);
  url.host = part(handle, CURLUPART_HOST);
  url.host = ascii_lower(url.host);
  curl_url_set(handle, CURLUPART_HOST, url.host.c_str(), 0);
  if (url.host.starts_with('[')) url.host = url.host.substr(1, url.host.size() - 2);
  if ((url.scheme != "http" && url.scheme != "https") || url.host.empty()) {
    refuse(text, what, kExpected);
  }
  if (!part(handle, CURLUPART_USER).empty() || !part(handle, CURLUPART_PASSWORD).empty()) {
    throw Error(Kind::Misused, fmt::format("{} names a user or password", what),
                "leave them out: keys are given by their own option");
  }
  url.port = static_cast<uint16_t>(
      std::strtoul(part(handle, CURLUPART_PORT, CURLU_DEFAULT_PORT).c_str(), nullptr, 10));
  if (url.port == 0) refuse(text, what, kExpected);
  url.path = part(handle, CURLUPART_PATH);
  curl_url_set(handle, CURLUPART_FRAGMENT, nullptr, 0);
  url.text = part(handle, CURLUPART_URL, CURLU_NO_DEFAULT_PORT);
  return url;
}

bool plain(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

// libcurl passes over "http://host:/"; a port that is named must be there.
bool empty_port(std::string_view text) {
  const size_t start = text.find("://");
  if (start == text.npos) return false;
  const std::string_view rest = text.substr(start + 3);
  return rest.substr(0, rest.find_first_of("/?#")).ends_with(':');
}

}  // namespace

Url Url::parse(std::string_view text, std::string_view what) {
  const Handle handle(curl_url(), curl_url_cleanup);
  if (!plain(text) || empty_port(text) ||
      curl_url_set(handle.get(), CURLUPART_URL, std::string(text).c_str(), 0) != CURLUE_OK) {
    refuse(text, what, kExpected);
  }
  return from_handle(handle.get(), text, what);
}

Url Url::resolve(std::string_view reference) const {
  const Handle handle(curl_url(), curl_url_cleanup);
  std::string encoded;  // servers send names in UTF-8 and with spaces as they are
  for (const char c : reference) {
    encoded += plain({&c, 1}) || (c >= 0 && c < ' ')
                   ? std::string(1, c)
                   : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  if (!plain(encoded) || curl_url_set(handle.get(), CURLUPART_URL, text.c_str(), 0) != CURLUE_OK ||
      curl_url_set(handle.get(), CURLUPART_URL, encoded.c_str(), 0) != CURLUE_OK) {
    refuse(reference, "the redirect", kExpected);
  }
  return from_handle(handle.get(), reference, "the redirect");
}

std::string Url::origin() const { return fmt::format("{}://{}:{}", scheme, host, port); }

bool Url::loopback() const noexcept {
  return host == "localhost" || host.ends_with(".localhost") || host == "::1" ||
         host.starts_with("127.");
}

std::string percent_encode(std::string_view text, bool keep_slash) {
  std::string out;
  for (const char c : text) {
    const bool safe = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '-' || c == '.' || c == '_' || c == '~' || (c == '/' && keep_slash);
    if (safe) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

}  // namespace quern::net
