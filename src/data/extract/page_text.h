// The main text of an HTML page: paragraphs, lists, tables and code of the article, without menus,
// related links, comments, notices; and the facts that a page states of itself.
//
// The scorer works on lines of text (a paragraph, a list item, a row of a table): how long they are,
// how much of them is link, how they end. It walks down to the smallest element that holds most of
// the page's running text, and leaves out of it what its names, its links or its headings call
// something else. Every pass is a loop over the page.
#pragma once

#include <string>
#include <string_view>

#include "data/extract/html_page.h"

namespace quern {

struct PageText {
  std::string text;      // lines, ended by LF; empty where the page has none
  std::string title;     // without the site's name
  std::string date;      // YYYY-MM-DD, of publication; empty where the page states none
  std::string language;  // as declared: "en-US"
  std::string url;       // the canonical address that the page states
};

PageText extract_page(const HtmlPage& page);

}  // namespace quern
