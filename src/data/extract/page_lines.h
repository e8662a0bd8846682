// A page as lines of visible text, each with its place in the tree: what the scorer judges.
#pragma once

#include <string>
#include <vector>

#include "data/extract/html_page.h"

namespace quern {

// A character of Chinese, Japanese, Korean or Thai says about as much as two letters.
struct PageLine {
  std::string text;
  int32_t block = 0;     // the innermost element that makes it a line
  int32_t node = 0;      // its first node of text
  int units = 0;         // length: letters count 1, Han, kana, Hangul and Thai characters 2
  int link_units = 0;    // what of it stands in links
  bool heading = false;  // h1 to h6
  bool item = false;     // of a list
  bool row = false;      // of a table
  bool pre = false;
  bool all_strong = false;
  double link_density() const noexcept {
    return units == 0 ? 0 : static_cast<double>(link_units) / units;
  }
};

// `skipped` has a flag for each node: 1 leaves its subtree out.
std::vector<PageLine> page_lines(const HtmlPage& page, const std::vector<char>& skipped);

int text_units(std::string_view text) noexcept;

}  // namespace quern
