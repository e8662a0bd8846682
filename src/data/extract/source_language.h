// What language a source file is in, by its name, its first line and, where one ending serves several
// languages, its content.
#pragma once

#include <string>
#include <string_view>

namespace quern {

// In lower case: "cpp", "objective-c", "text"; empty where nothing tells. `path` uses / between
// folders, `text` is UTF-8.
std::string_view source_language(std::string_view path, std::string_view text);

}  // namespace quern
