// Text as a JSON string.
#pragma once

#include <string>
#include <string_view>

namespace quern {

// Appends `text` with its quotes. UTF-8 is kept; control characters are escaped as Python's json
// module escapes them: \n, \b, \u001f.
void append_json_string(std::string& out, std::string_view text);
std::string json_string(std::string_view text);

}  // namespace quern
