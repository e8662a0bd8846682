// What a page states of itself in its head: title, date, language, address.
#pragma once

#include <string>

#include "data/extract/html_page.h"

namespace quern {

// The heading that stands in <title> too, else <title> without the site's name.
std::string page_title(const HtmlPage& page);
// YYYY-MM-DD from meta, JSON-LD or <time>; empty where none states it.
std::string page_date(const HtmlPage& page);
std::string page_language(const HtmlPage& page);
std::string page_address(const HtmlPage& page);

}  // namespace quern
