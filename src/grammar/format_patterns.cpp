#include "grammar/format_patterns.h"

namespace quern {
namespace {

// RFC 3339's full-date with the days that a month has. There is no year 0 in most calendars.
constexpr const char* kDate =
    "(?:(?:000[1-9]|00[1-9]\\d|0[1-9]\\d\\d|[1-9]\\d{3})-"
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|"
    "02-(?:0[1-9]|1\\d|2[0-8]))|"
    "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29)";
// No leap seconds, which only some minutes have; parts of a second as far as clocks of
// microseconds.
constexpr const char* kTime =
    "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,6})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)";
constexpr const char* kUuid =
    "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}";
constexpr const char* kIpv4 =
    "(?:(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)\\.){3}(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
constexpr const char* kIpv6 = "(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}";
// Labels of at most 62 characters, three of them before one of letters: 214 characters at most.
constexpr const char* kDomain =
    "(?:[0-9A-Za-z]{1,20}(?:-[0-9A-Za-z]{1,20}){0,2}\\.){1,3}[A-Za-z]{2,24}";
// A dot-atom of at most 64 characters (RFC 5321, 4.5.3.1.1).
constexpr const char* kLocalPart =
    "[0-9A-Za-z!#$%&'*+/=?^_{|}~-]{1,32}(?:\\.[0-9A-Za-z!#$%&'*+/=?^_{|}~-]{1,15}){0,2}";
// RFC 3986 with an authority that is a name or an IPv4 address; at most 1,900 characters.
constexpr const char* kPathCharacter = "(?:[0-9A-Za-z._~!$&'()*+,;=:@-]|%[0-9A-Fa-f][0-9A-Fa-f])";
constexpr const char* kDuration =
    "P(?:\\d{1,4}W|(?:\\d{1,4}Y(?:\\d{1,4}M(?:\\d{1,4}D)?)?|\\d{1,4}M(?:\\d{1,4}D)?|\\d{1,4}D)"
    "(?:T(?:\\d{1,4}H(?:\\d{1,4}M(?:\\d{1,4}S)?)?|\\d{1,4}M(?:\\d{1,4}S)?|\\d{1,4}S))?|"
    "T(?:\\d{1,4}H(?:\\d{1,4}M(?:\\d{1,4}S)?)?|\\d{1,4}M(?:\\d{1,4}S)?|\\d{1,4}S))";

std::string uri() {
  const std::string p = kPathCharacter;
  return std::string("[A-Za-z][0-9A-Za-z+.-]{0,15}://(?:") + kDomain + "|localhost|" + kIpv4 +
         ")(?::[1-9]\\d{0,3})?(?:/" + p + "{0,40}){0,8}(?:\\?(?:" + p +
         "|[/?]){0,80})?(?:#(?:" + p + "|[/?]){0,40})?";
}

std::string anchored(const std::string& pattern) { return "^(?:" + pattern + ")$"; }

}  // namespace

std::string format_pattern(std::string_view format) {
  if (format == "date") return anchored(kDate);
  if (format == "time") return anchored(kTime);
  if (format == "date-time") return anchored(std::string(kDate) + "T" + kTime);
  if (format == "duration") return anchored(kDuration);
  if (format == "uuid") return anchored(kUuid);
  if (format == "email") return anchored(std::string(kLocalPart) + "@" + kDomain);
  if (format == "hostname") return anchored(kDomain);
  if (format == "ipv4") return anchored(kIpv4);
  if (format == "ipv6") return anchored(kIpv6);
  if (format == "uri") return anchored(uri());
  return {};
}

std::string known_formats() {
  return "date, time, date-time, duration, uuid, email, hostname, ipv4, ipv6 and uri";
}

}  // namespace quern
