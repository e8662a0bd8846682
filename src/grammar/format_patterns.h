// The texts that JSON Schema's "format" names, as regular expressions. Inside grammar/.
#pragma once

#include <string>
#include <string_view>

namespace quern {

// Empty for a format that is not known. Every text that fits is of the format by its RFC; some
// of the format do not fit (quoted local parts, addresses of one label, leap seconds).
std::string format_pattern(std::string_view format);
// "date, time, ...", for messages.
std::string known_formats();

}  // namespace quern
