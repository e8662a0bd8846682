#include "data/extract/html_page.h"

#include <algorithm>
#include <array>
#include <string>

#include "core/ascii.h"
#include "core/utf8.h"

namespace quern {
namespace {

struct Reference {
  std::string_view name, utf8;
  bool bare;  // also without its semicolon
};

constexpr Reference kReferences[] = {
#include "data/extract/html_entities.inc"
};

bool is_space(char c) noexcept {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f';
}
bool is_letter(char c) noexcept { return (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z'); }

// What pages mean by references 128 to 159: windows-1252.
constexpr std::array<uint16_t, 32> kWindows1252 = {
    0x20AC, 0x81,   0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
    0x2039, 0x0152, 0x8D,   0x017D, 0x8F,   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
    0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x9D,   0x017E, 0x0178};

// The reference at text[at] == '&': appends its meaning and returns its length; 0 where it is none.
size_t take_reference(std::string_view text, size_t at, std::string& out) {
  if (at + 2 < text.size() && text[at + 1] == '#') {
    const bool hex = ascii_lower(text[at + 2]) == 'x';
    size_t i = at + (hex ? 3 : 2);
    const size_t digits = i;
    uint32_t value = 0;
    for (; i < text.size(); ++i) {
      const char c = ascii_lower(text[i]);
      uint32_t digit = 0;
      if (c >= '0' && c <= '9') {
        digit = static_cast<uint32_t>(c - '0');
      } else if (hex && c >= 'a' && c <= 'f') {
        digit = static_cast<uint32_t>(c - 'a') + 10;
      } else {
        break;
      }
      value = std::min<uint32_t>(value * (hex ? 16 : 10) + digit, 0x110000);
    }
    if (i == digits) return 0;
    if (i < text.size() && text[i] == ';') ++i;
    if (value >= 128 && value < 160) value = kWindows1252[value - 128];
    if (value == 0 || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) value = 0xFFFD;
    utf8::append(out, value);
    return i - at;
  }
  size_t end = at + 1;
  while (end < text.size() && end - at <= 32 &&
         (is_letter(text[end]) || (text[end] >= '0' && text[end] <= '9'))) {
    ++end;
  }
  const bool closed = end < text.size() && text[end] == ';';
  for (size_t length = end - at - 1; length > 1; --length) {
    const std::string_view name = text.substr(at + 1, length);
    const auto* found = std::ranges::lower_bound(kReferences, name, {}, &Reference::name);
    if (found != std::end(kReferences) && found->name == name) {
      const bool whole = closed && length == end - at - 1;
      if (whole || found->bare) {
        out += found->utf8;
        return length + 1 + (whole ? 1 : 0);
      }
    }
    if (length > 7) length = 7;  // no longer name stands without a semicolon
  }
  return 0;
}

}  // namespace

std::string decode_references(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t next = std::min(text.find('&', at), text.size());
    out.append(text, at, next - at);
    if (next == text.size()) break;
    const size_t taken = take_reference(text, next, out);
    if (taken == 0) out += '&';
    at = next + std::max<size_t>(taken, 1);
  }
  return out;
}

// Reads tags and text into the arrays of a page.
class HtmlParser {
 public:
  HtmlParser(HtmlPage& page, std::string_view html) : page_(page), html_(html) {}

  void parse() {
    page_.nodes_.reserve(html_.size() / 24 + 16);
    page_.nodes_.push_back({.tag = Tag::Html, .text = {}});
    open_.push_back(0);
    size_t at = 0;
    while (at < html_.size()) {
      if (html_[at] != '<') {
        const size_t end = std::min(html_.find('<', at), html_.size());
        add_text(html_.substr(at, end - at), true);
        at = end;
        continue;
      }
      at = tag(at);
    }
    while (!open_.empty()) pop();
  }

 private:
  // A tag, comment or declaration at `at`; returns where the text goes on.
  size_t tag(size_t at) {
    const char next = at + 1 < html_.size() ? html_[at + 1] : '\0';
    if (is_letter(next)) return start_tag(at + 1);
    if (next == '/') {
      if (at + 2 < html_.size() && is_letter(html_[at + 2])) return end_tag(at + 2);
      return behind('>', at + 2);
    }
    if (next == '!' || next == '?') {
      if (html_.substr(at, 4) == "<!--") {
        if (html_.substr(at + 4, 1) == ">") return at + 5;
        const size_t end = open_comment_ ? std::string_view::npos : html_.find("-->", at + 4);
        open_comment_ = end == std::string_view::npos;  // and so is every later one
        return open_comment_ ? behind('>', at) : end + 3;
      }
      if (html_.substr(at, 9) == "<![CDATA[" && !open_cdata_) {
        const size_t end = html_.find("]]>", at + 9);
        open_cdata_ = end == std::string_view::npos;
        if (!open_cdata_) {
          add_text(html_.substr(at + 9, end - at - 9), false);
          return end + 3;
        }
      }
      return behind('>', at);
    }
    add_text(html_.substr(at, 1), false);
    return at + 1;
  }

  size_t behind(char c, size_t at) const {
    const size_t end = html_.find(c, at);
    return end == std::string_view::npos ? html_.size() : end + 1;
  }

  std::string_view name_at(size_t at, size_t& end) {
    end = at;
    while (end < html_.size() && !is_space(html_[end]) && html_[end] != '>' && html_[end] != '/') {
      ++end;
    }
    const std::string_view name = html_.substr(at, end - at);
    if (std::ranges::none_of(name, [](char c) { return c >= 'A' && c <= 'Z'; })) return name;
    lowered_.assign(name);
    std::ranges::transform(lowered_, lowered_.begin(), [](char c) { return ascii_lower(c); });
    return lowered_;
  }

  size_t start_tag(size_t at) {
    size_t end = 0;
    const Tag tag = tag_of(name_at(at, end));
    HtmlNode node = {.tag = tag,
                     .text = tag == Tag::Other ? html_.substr(at, end - at) : "",
                     .attributes = static_cast<uint32_t>(page_.attributes_.size())};
    bool closed_itself = false;
    end = attributes(end, node, closed_itself);
    imply_ends(tag);
    const auto index = static_cast<int32_t>(page_.nodes_.size());
    node.parent = open_.back();
    page_.nodes_.push_back(node);
    if (is_void(tag) || (closed_itself && (tag == Tag::Other || tag == Tag::Svg))) {
      page_.nodes_.back().end = index + 1;
      return end;
    }
    push(index, tag);
    if (is_raw(tag)) {
      const size_t close = raw_end(end, tag);
      const std::string_view content = html_.substr(end, close - end);
      if (tag == Tag::Script) {
        page_.scripts_.emplace_back(page_.attribute(node, "type"), content);
      } else if (tag == Tag::Title || tag == Tag::Textarea || tag == Tag::Xmp) {
        add_text(content, tag != Tag::Xmp);
      }
      pop();
      return behind('>', close);
    }
    return end;
  }

  // Where the end tag of a raw element begins. An element that is never closed reaches to the end,
  // and so does every later one of its kind: looked for once.
  size_t raw_end(size_t at, Tag tag) {
    const std::string_view wanted = name_of(tag);
    while (true) {
      at = html_.find("</", at);
      if (at == std::string_view::npos) return html_.size();
      at += 2;
      if (html_.size() - at < wanted.size()) return html_.size();
      if (std::ranges::equal(html_.substr(at, wanted.size()), wanted, {},
                             [](char c) { return ascii_lower(c); }))
        return at - 2;
    }
  }

  size_t attributes(size_t at, HtmlNode& node, bool& closed_itself) {
    while (at < html_.size()) {
      while (at < html_.size() && (is_space(html_[at]) || html_[at] == '/')) {
        closed_itself = html_[at] == '/';
        ++at;
      }
      if (at >= html_.size()) break;
      if (html_[at] == '>') return at + 1;
      closed_itself = false;
      const size_t name_begin = at;
      ++at;  // '=' may begin a name
      while (at < html_.size() && !is_space(html_[at]) && html_[at] != '=' && html_[at] != '>' &&
             html_[at] != '/') {
        ++at;
      }
      std::string_view name = html_.substr(name_begin, at - name_begin);
      while (at < html_.size() && is_space(html_[at])) ++at;
      std::string_view value;
      if (at < html_.size() && html_[at] == '=') {
        ++at;
        while (at < html_.size() && is_space(html_[at])) ++at;
        if (at < html_.size() && (html_[at] == '"' || html_[at] == '\'')) {
          const size_t close = html_.find(html_[at], at + 1);
          const size_t end = std::min(close, html_.size());
          value = html_.substr(at + 1, end - at - 1);
          at = std::min(end + 1, html_.size());
        } else {
          const size_t begin = at;
          while (at < html_.size() && !is_space(html_[at]) && html_[at] != '>') ++at;
          value = html_.substr(begin, at - begin);
        }
      }
      if (node.attribute_count < 64) {
        if (std::ranges::any_of(name, [](char c) { return c >= 'A' && c <= 'Z'; })) {
          std::string small(name);
          std::ranges::transform(small, small.begin(), [](char c) { return ascii_lower(c); });
          name = own(std::move(small));
        }
        if (value.find('&') != std::string_view::npos) value = own(decode_references(value));
        page_.attributes_.emplace_back(name, value);
        ++node.attribute_count;
      }
    }
    return html_.size();
  }

  size_t end_tag(size_t at) {
    size_t end = 0;
    const std::string_view name = name_at(at, end);
    const Tag tag = tag_of(name);
    const size_t after = behind('>', end);
    if (tag == Tag::Br || tag == Tag::P) {
      if (tag == Tag::Br || open_count_[static_cast<size_t>(Tag::P)] == 0) {
        if (tag == Tag::Br) {
          page_.nodes_.push_back({.tag = tag,
                                  .parent = open_.back(),
                                  .end = static_cast<int32_t>(page_.nodes_.size()) + 1,
                                  .text = {}});
        }
        return after;
      }
    }
    if (tag == Tag::Body || tag == Tag::Html) return after;  // what follows belongs to them
    if (tag == Tag::Other) {
      // Only the innermost of them: elements that the tree knows nothing of.
      if (page_.nodes_[static_cast<size_t>(open_.back())].tag == Tag::Other) pop();
      return after;
    }
    close(tag);
    return after;
  }

  // Ends the innermost open `tag` and what stands open in it, but not beyond a table's cell.
  void close(Tag tag) {
    if (open_count_[static_cast<size_t>(tag)] == 0) return;
    const bool table_part = tag == Tag::Table || tag == Tag::Td || tag == Tag::Th ||
                            tag == Tag::Tr || tag == Tag::Tbody || tag == Tag::Thead ||
                            tag == Tag::Tfoot;
    const bool block = ends_paragraph(tag);
    size_t depth = open_.size();
    for (size_t steps = 0; depth > 1; ++steps) {
      if (steps == kMaxClose) return;
      const Tag open = tag_at(depth - 1);
      if (open == tag) break;
      if (!table_part && (open == Tag::Td || open == Tag::Th || open == Tag::Table)) return;
      if (!block && !table_part && ends_paragraph(open)) return;
      --depth;
    }
    if (depth <= 1) return;
    while (open_.size() >= depth) pop();
  }

  // What the start of `tag` ends without its end tag.
  void imply_ends(Tag tag) {
    if (open_count_[static_cast<size_t>(Tag::Head)] > 0 && !belongs_in_head(tag)) {
      end_within(Tag::Head, {Tag::Body});
    }
    if (ends_paragraph(tag) && open_count_[static_cast<size_t>(Tag::P)] > 0) {
      end_within(Tag::P, {Tag::Td, Tag::Th, Tag::Table, Tag::Button, Tag::Object});
    }
    switch (tag) {
      case Tag::Li:
        end_within(Tag::Li, {Tag::Ul, Tag::Ol, Tag::Menu, Tag::Dir, Tag::Td, Tag::Th});
        break;
      case Tag::Dd:
      case Tag::Dt:
        end_within(Tag::Dd, {Tag::Dl, Tag::Td, Tag::Th});
        end_within(Tag::Dt, {Tag::Dl, Tag::Td, Tag::Th});
        break;
      case Tag::Td:
      case Tag::Th:
        end_within(Tag::Td, {Tag::Table, Tag::Tr});
        end_within(Tag::Th, {Tag::Table, Tag::Tr});
        break;
      case Tag::Tr:
        end_within(Tag::Tr, {Tag::Table});
        break;
      case Tag::Tbody:
      case Tag::Thead:
      case Tag::Tfoot:
        end_within(Tag::Tbody, {Tag::Table});
        end_within(Tag::Thead, {Tag::Table});
        end_within(Tag::Tr, {Tag::Table});
        break;
      case Tag::Option:
      case Tag::Optgroup:
        end_within(Tag::Option, {Tag::Select});
        break;
      case Tag::A:
        end_within(Tag::A, {Tag::Td, Tag::Th, Tag::Table, Tag::Div, Tag::Li});
        break;
      default:
        break;
    }
  }

  // Ends the innermost open `tag` unless one of `walls` stands between.
  void end_within(Tag tag, std::initializer_list<Tag> walls) {
    if (open_count_[static_cast<size_t>(tag)] == 0) return;
    size_t steps = 0;
    for (size_t depth = open_.size(); depth > 1 && steps < kMaxWalk; --depth, ++steps) {
      const Tag open = tag_at(depth - 1);
      if (open == tag) {
        while (open_.size() >= depth) pop();
        return;
      }
      if (std::ranges::find(walls, open) != walls.end()) return;
    }
  }

  Tag tag_at(size_t depth) const { return page_.nodes_[static_cast<size_t>(open_[depth])].tag; }

  void push(int32_t index, Tag tag) {
    open_.push_back(index);
    ++open_count_[static_cast<size_t>(tag)];
  }
  void pop() {
    HtmlNode& node = page_.nodes_[static_cast<size_t>(open_.back())];
    node.end = static_cast<int32_t>(page_.nodes_.size());
    --open_count_[static_cast<size_t>(node.tag)];
    open_.pop_back();
  }

  void add_text(std::string_view text, bool references) {
    if (text.empty()) return;
    if (references && text.find('&') != std::string_view::npos) text = own(decode_references(text));
    const auto index = static_cast<int32_t>(page_.nodes_.size());
    page_.nodes_.push_back(
        {.tag = Tag::Text, .parent = open_.back(), .end = index + 1, .text = text});
  }

  // Long texts apart, so that a view never moves: short strings would lie in the vector itself.
  std::string_view own(std::string text) {
    text.reserve(32);
    page_.owned_.push_back(std::move(text));
    return page_.owned_.back();
  }

  // Steps up the open elements for one tag: so a page of nothing but nesting is read in linear time.
  static constexpr size_t kMaxWalk = 64, kMaxClose = 256;
  HtmlPage& page_;
  std::string_view html_;
  std::vector<int32_t> open_;
  std::array<int32_t, kTags> open_count_ = {};
  std::string lowered_;
  bool open_comment_ = false, open_cdata_ = false;
};

HtmlPage::HtmlPage(std::string_view html) { HtmlParser(*this, html).parse(); }

std::string_view HtmlPage::attribute(const HtmlNode& node, std::string_view name) const noexcept {
  for (size_t i = 0; i < node.attribute_count; ++i) {
    const auto& [key, value] = attributes_[node.attributes + i];
    if (key == name) return value;
  }
  return {};
}

bool HtmlPage::has(const HtmlNode& node, std::string_view name) const noexcept {
  for (size_t i = 0; i < node.attribute_count; ++i) {
    if (attributes_[node.attributes + i].first == name) return true;
  }
  return false;
}

}  // namespace quern
