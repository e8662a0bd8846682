// Words that say what a part of a page is: in names of classes and ids, in headings, in lines.
#pragma once

#include <string_view>

#include "data/extract/html_page.h"

namespace quern {

enum class NamedRole {
  None,
  Note,      // author, date, caption, small print: dropped where it is short
  Aside,     // related pages, menus, advertisements, notices
  Comments,  // what readers wrote
};

// By class, id and role.
NamedRole named_role(const HtmlPage& page, const HtmlNode& node);
// A name that says "here is the article".
bool names_content(const HtmlPage& page, const HtmlNode& node);
// A line that heads something else: "Related stories", "Комментарии", "相关阅读".
bool heads_other(std::string_view line);
// A line that only leads elsewhere: "Read more: ...", "Share this".
bool link_line(std::string_view line);
// A line of date and author.
bool dated_line(std::string_view line);

}  // namespace quern
