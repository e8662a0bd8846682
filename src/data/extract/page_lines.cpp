#include "data/extract/page_lines.h"

#include <algorithm>

namespace quern {
namespace {

bool is_space(char c) noexcept {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

// Length in bytes of a white space character at text[at], also no-break space, ideographic space
// and what has no width; 0 where there is none.
size_t space_at(std::string_view text, size_t at) noexcept {
  if (is_space(text[at])) return 1;
  const std::string_view rest = text.substr(at);
  if (rest.starts_with("\xC2\xA0") || rest.starts_with("\xC2\xAD")) return 2;
  if (rest.starts_with("\xE3\x80\x80") || rest.starts_with("\xE2\x80\x8B") ||
      rest.starts_with("\xEF\xBB\xBF")) {
    return 3;
  }
  if (rest.size() >= 3 && rest[0] == '\xE2' && rest[1] == '\x80' &&
      static_cast<unsigned char>(rest[2]) >= 0x80 && static_cast<unsigned char>(rest[2]) <= 0x8A) {
    return 3;
  }
  return 0;
}

// Builds lines out of the text nodes of a page, in their order.
class LineMaker {
 public:
  LineMaker(const HtmlPage& page, const std::vector<char>& skipped)
      : nodes_(page.nodes()), skipped_(skipped) {}

  std::vector<PageLine> make() {
    find_rows();
    for (size_t i = 1; i < nodes_.size(); ++i) {
      leave(static_cast<int32_t>(i));
      if (skipped_[i]) {
        i = static_cast<size_t>(nodes_[i].end) - 1;
        continue;
      }
      const HtmlNode& node = nodes_[i];
      if (node.tag == Tag::Text) {
        add(node.text, static_cast<int32_t>(i));
      } else {
        enter(static_cast<int32_t>(i), node.tag);
      }
    }
    leave(static_cast<int32_t>(nodes_.size()));
    flush();
    return std::move(lines_);
  }

 private:
  // A row is one line where its cells hold short text and nothing that makes lines itself.
  void find_rows() {
    row_.assign(nodes_.size(), 0);
    std::vector<int32_t> rows;
    for (size_t i = 1; i < nodes_.size(); ++i) {
      if (nodes_[i].tag == Tag::Tr) row_[i] = 1;
    }
    for (size_t i = 1; i < nodes_.size(); ++i) {
      while (!rows.empty() &&
             nodes_[static_cast<size_t>(rows.back())].end <= static_cast<int32_t>(i)) {
        rows.pop_back();
      }
      const Tag tag = nodes_[i].tag;
      const bool makes_lines =
          tag == Tag::Br || tag == Tag::Hr ||
          (is_block(tag) && tag != Tag::Td && tag != Tag::Th && tag != Tag::P && tag != Tag::Div);
      if (!rows.empty() &&
          (makes_lines || (tag == Tag::Text && nodes_[i].text.size() > kMaxCell))) {
        for (const int32_t row : rows) row_[static_cast<size_t>(row)] = 0;
        rows.clear();
      }
      if (tag == Tag::Tr) rows.push_back(static_cast<int32_t>(i));
    }
  }

  void enter(int32_t i, Tag tag) {
    if (tag == Tag::Br) {
      if (!in_row_) flush();
      return;
    }
    if (tag == Tag::A || tag == Tag::Button) ++links_;
    if (tag == Tag::Strong || tag == Tag::B) ++strong_;
    if (tag == Tag::Pre) ++pre_;
    if (tag == Tag::A || tag == Tag::Button || tag == Tag::Strong || tag == Tag::B ||
        tag == Tag::Pre || is_block(tag)) {
      open_.push_back(i);
    }
    if (!is_block(tag)) return;
    if (in_row_) {
      if (tag == Tag::Td || tag == Tag::Th) cell_ = true;
      space_ = true;
      return;
    }
    flush();
    blocks_.push_back(i);
    if (tag == Tag::Tr && row_[static_cast<size_t>(i)] != 0) {
      in_row_ = true;
      cell_ = false;
    }
  }

  // Ends what ends before node `next`.
  void leave(int32_t next) {
    while (!open_.empty() && nodes_[static_cast<size_t>(open_.back())].end <= next) {
      const Tag tag = nodes_[static_cast<size_t>(open_.back())].tag;
      if (tag == Tag::A || tag == Tag::Button) --links_;
      if (tag == Tag::Strong || tag == Tag::B) --strong_;
      if (is_block(tag)) {
        if (!blocks_.empty() && blocks_.back() == open_.back()) {
          flush();
          blocks_.pop_back();
          if (tag == Tag::Tr) in_row_ = false;
        } else {
          space_ = true;
        }
      }
      if (tag == Tag::Pre) --pre_;
      open_.pop_back();
    }
  }

  void add(std::string_view text, int32_t node) {
    if (pre_ > 0) {
      if (text_.empty() && text.starts_with("\n")) text.remove_prefix(1);
      begin(node);
      text_ += text;
      return;
    }
    for (size_t at = 0; at < text.size();) {
      if (const size_t space = space_at(text, at)) {
        if (!(space == 2 && text[at + 1] == '\xAD') &&
            !(space == 3 && text.substr(at, 3) == "\xE2\x80\x8B")) {
          space_ = true;
        }
        at += space;
        continue;
      }
      size_t end = at;
      while (end < text.size() && space_at(text, end) == 0) ++end;
      begin(node);
      if (cell_ && !text_.empty()) {
        text_ += " | ";
      } else if (space_ && !text_.empty()) {
        text_ += ' ';
      }
      cell_ = space_ = false;
      const std::string_view word = text.substr(at, end - at);
      text_ += word;
      const int units = text_units(word);
      line_.units += units;
      if (links_ > 0) line_.link_units += units;
      if (strong_ == 0) line_.all_strong = false;
      at = end;
    }
  }

  void begin(int32_t node) {
    if (!text_.empty()) return;
    line_ = {};
    line_.node = node;
    line_.all_strong = true;
    line_.block = blocks_.empty() ? 0 : blocks_.back();
  }

  void flush() {
    space_ = cell_ = false;
    if (text_.empty()) return;
    if (pre_ > 0) {
      while (!text_.empty() && is_space(text_.back())) text_.pop_back();
      line_.units = text_units(text_);
      line_.pre = true;
    }
    if (!text_.empty()) {
      for (size_t i = blocks_.size(); i-- > 0 && blocks_.size() - i <= 3;) {
        const Tag tag = nodes_[static_cast<size_t>(blocks_[i])].tag;
        line_.heading |= tag >= Tag::H1 && tag <= Tag::H6;
        line_.item |= tag == Tag::Li && (i + 1 == blocks_.size() || i + 2 == blocks_.size());
      }
      line_.row = in_row_;
      line_.text = std::move(text_);
      lines_.push_back(std::move(line_));
    }
    text_.clear();
  }

  static constexpr size_t kMaxCell = 600;
  const std::vector<HtmlNode>& nodes_;
  const std::vector<char>& skipped_;
  std::vector<char> row_;
  std::vector<int32_t> open_, blocks_;
  int links_ = 0, strong_ = 0, pre_ = 0;
  bool in_row_ = false, cell_ = false, space_ = false;
  std::string text_;
  PageLine line_;
  std::vector<PageLine> lines_;
};

}  // namespace

std::vector<PageLine> page_lines(const HtmlPage& page, const std::vector<char>& skipped) {
  return LineMaker(page, skipped).make();
}

int text_units(std::string_view text) noexcept {
  int units = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if ((c & 0xC0) == 0x80) continue;
    ++units;
    // Thai (E0 B8, E0 B9) and what lies from the kana to the Hangul (E3 to ED), and planes above.
    if (c >= 0xE3 && c <= 0xED) ++units;
    if (c == 0xF0) ++units;
  }
  return units;
}

}  // namespace quern
