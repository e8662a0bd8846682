// Absolute http and https addresses, taken apart and put together by libcurl's parser.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace quern::net {

struct Url {
  std::string scheme;  // "http" or "https"
  std::string host;    // without the brackets of an IPv6 address
  uint16_t port = 0;   // the scheme's own where the text has none
  std::string path;    // begins with '/', percent-encoded as written
  std::string text;    // all of it, normalized, without user, password and fragment

  // Throws Misused, with `what` before the text, for what is no such address or names a user.
  static Url parse(std::string_view text, std::string_view what = "the address");
  // A Location header or a link, seen from this address. Throws Misused as parse() does.
  Url resolve(std::string_view reference) const;

  // Scheme, host and port: credentials for one origin are not sent to another.
  std::string origin() const;
  bool loopback() const noexcept;  // by its name
};

// `text` percent-encoded for one segment of a path; '/' stays where `keep_slash`.
std::string percent_encode(std::string_view text, bool keep_slash = false);

}  // namespace quern::net
