// An HTML page as a tree in arrays: nodes in the order of the text, each with its parent and the end
// of its subtree, so that every pass over a page is a loop.
//
// Parsing is linear in the page whatever stands in it (100,000 nested tags, stray end tags, a tag
// of a million attributes) and never fails: it follows the rules of the HTML standard for tokens,
// implied end tags and raw text, and leaves out those for misnested formatting, which move no text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/extract/html_tags.h"

namespace quern {

struct HtmlNode {
  Tag tag = Tag::Text;
  int32_t parent = -1;
  int32_t end = 0;          // one past the last node of the subtree
  std::string_view text;    // of a text node, references decoded; of Tag::Other: its name
  uint32_t attributes = 0;  // the first of them
  uint16_t attribute_count = 0;
};

class HtmlPage {
 public:
  // `html` is UTF-8 and must outlive the page. Unknown bytes are taken as they are.
  explicit HtmlPage(std::string_view html);

  const std::vector<HtmlNode>& nodes() const noexcept { return nodes_; }  // [0] is the document
  // An attribute's value with references decoded; empty where it is absent. Names in lower case.
  std::string_view attribute(const HtmlNode& node, std::string_view name) const noexcept;
  bool has(const HtmlNode& node, std::string_view name) const noexcept;
  // The raw text of all scripts of this type, for the facts that they state.
  const std::vector<std::pair<std::string_view, std::string_view>>& scripts() const noexcept {
    return scripts_;  // type, text
  }

 private:
  friend class HtmlParser;
  std::vector<HtmlNode> nodes_;
  std::vector<std::pair<std::string_view, std::string_view>> attributes_;
  std::vector<std::pair<std::string_view, std::string_view>> scripts_;
  std::vector<std::string> owned_;  // what the tree refers to and the page does not hold
};

// Character references decoded: &amp; &#x4e2d; &#150; (as windows-1252), what names nothing stays.
std::string decode_references(std::string_view text);

}  // namespace quern
