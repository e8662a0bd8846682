// Text inside HTML and SVG.
#pragma once

#include <string>
#include <string_view>

namespace quern {

// `text` with & < > " as entities, for the content of an element or a quoted attribute.
std::string escape_markup(std::string_view text);

}  // namespace quern
