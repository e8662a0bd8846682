#include "data/extract/page_text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <unordered_set>

#include "data/extract/page_facts.h"
#include "data/extract/page_lines.h"
#include "data/extract/page_words.h"

namespace quern {
namespace {

// Elements that hold no text of a page.
bool never_text(Tag tag) noexcept {
  switch (tag) {
    case Tag::Head:
    case Tag::Script:
    case Tag::Style:
    case Tag::Noscript:
    case Tag::Template:
    case Tag::Nav:
    case Tag::Footer:
    case Tag::Select:
    case Tag::Option:
    case Tag::Button:
    case Tag::Textarea:
    case Tag::Iframe:
    case Tag::Svg:
    case Tag::Math:
    case Tag::Canvas:
    case Tag::Object:
    case Tag::Video:
    case Tag::Audio:
    case Tag::Dialog:
    case Tag::Menu:
    case Tag::Label:
    case Tag::Noembed:
    case Tag::Noframes:
    case Tag::Title:
      return true;
    default:
      return false;
  }
}

bool hidden(const HtmlPage& page, const HtmlNode& node) {
  if (node.attribute_count == 0) return false;
  if (page.has(node, "hidden")) return true;
  if (page.attribute(node, "aria-hidden") == "true" && node.tag != Tag::Body) return true;
  std::string style(page.attribute(node, "style"));
  if (style.empty()) return false;
  std::erase(style, ' ');
  return style.find("display:none") != std::string::npos ||
         style.find("visibility:hidden") != std::string::npos;
}

class Scorer {
 public:
  explicit Scorer(const HtmlPage& page) : page_(page), nodes_(page.nodes()) {}

  PageText extract() {
    PageText out;
    out.title = page_title(page_);
    out.date = page_date(page_);
    out.language = page_language(page_);
    out.url = page_address(page_);

    skipped_.assign(nodes_.size(), 0);
    skip_elements();
    lines_ = page_lines(page_, skipped_);
    skip_named();
    drop_skipped();
    cut_sections();
    if (lines_.empty()) return out;
    const size_t main = find_main();
    keep_within(main);
    judge_lines(out.title);
    for (const PageLine& line : lines_) {
      if (line.item) out.text += "- ";
      out.text += line.text;
      out.text += '\n';
    }
    return out;
  }

 private:
  const HtmlNode& node(int32_t i) const { return nodes_[static_cast<size_t>(i)]; }

  // Menus, scripts, forms and what is not shown.
  void skip_elements() {
    for (size_t i = 1; i < nodes_.size(); ++i) {
      const Tag tag = nodes_[i].tag;
      if (never_text(tag) || (tag != Tag::Text && hidden(page_, nodes_[i]))) {
        skipped_[i] = 1;
        i = static_cast<size_t>(nodes_[i].end) - 1;
      }
    }
  }

  struct Sums {
    int64_t units = 0, links = 0, prose = 0;
  };

  static bool ends_sentence(const std::string& text) {
    static constexpr std::string_view kEnds[] = {".", "!",  "?",  ":",  "\"", "”",  "’",
                                                 "…", "。", "！", "？", "」", "』", "：",
                                                 ")", "）", "»",  ";",  "；"};
    return std::ranges::any_of(kEnds, [&](std::string_view end) { return text.ends_with(end); });
  }

  static bool closes_text(const PageLine& line) {
    if (line.heading || line.row) return false;
    return line.pre || prose_of(line) > 0 ||
           (!line.item && line.link_units == 0 && ends_sentence(line.text));
  }

  // Running text: what an article is made of.
  static int prose_of(const PageLine& line) {
    const int plain = line.units - line.link_units;
    if (line.heading || line.link_density() > 0.5) return 0;
    if (line.pre) return line.units / 4;
    if (line.row) return plain / 2;
    if (plain >= 80 || (plain >= 30 && ends_sentence(line.text))) return plain;
    return 0;
  }

  // Sums of the lines by node, each line added to all that hold it.
  std::vector<Sums> sums() const {
    std::vector<Sums> out(nodes_.size());
    for (const PageLine& line : lines_) {
      Sums& sum = out[static_cast<size_t>(line.block)];
      sum.units += line.units;
      sum.links += line.link_units;
      sum.prose += prose_of(line);
    }
    for (size_t i = nodes_.size(); i-- > 1;) {
      Sums& up = out[static_cast<size_t>(nodes_[i].parent)];
      up.units += out[i].units;
      up.links += out[i].links;
      up.prose += out[i].prose;
    }
    return out;
  }

  // Subtrees that their names call something else, as long as they aren't most of the page.
  void skip_named() {
    const std::vector<Sums> sum = sums();
    const int64_t prose = std::max<int64_t>(sum[0].prose, 1);
    for (size_t i = 1; i < nodes_.size(); ++i) {
      if (skipped_[i]) {
        i = static_cast<size_t>(nodes_[i].end) - 1;
        continue;
      }
      const HtmlNode& one = nodes_[i];
      if (one.tag == Tag::Text || one.tag == Tag::Body || one.tag == Tag::Html || one.tag == Tag::A)
        continue;
      if (one.tag == Tag::Article || one.tag == Tag::Main) {
        if (one.tag == Tag::Main) continue;
      }
      const NamedRole role = named_role(page_, one);
      if (role == NamedRole::None) continue;
      const double share = static_cast<double>(sum[i].prose) / static_cast<double>(prose);
      const double density =
          sum[i].units == 0 ? 0
                            : static_cast<double>(sum[i].links) / static_cast<double>(sum[i].units);
      const bool drop =
          role == NamedRole::Comments ? share < 0.8 || prose - sum[i].prose >= kLeastArticle
          : role == NamedRole::Aside  ? share < 0.4
                                      : sum[i].units < 250 || (density > 0.3 && share < 0.3);
      if (drop) {
        skipped_[i] = 1;
        i = static_cast<size_t>(one.end) - 1;
      }
    }
  }

  void drop_skipped() {
    std::vector<char> inside(nodes_.size(), 0);
    for (size_t i = 1; i < nodes_.size(); ++i) {
      inside[i] = static_cast<char>(skipped_[i] | inside[static_cast<size_t>(nodes_[i].parent)]);
    }
    std::erase_if(lines_, [&](const PageLine& line) {
      return inside[static_cast<size_t>(line.node)] != 0 ||
             inside[static_cast<size_t>(line.block)] != 0;
    });
  }

  // Down from the top while one child holds most of the running text.
  size_t find_main() const {
    const std::vector<Sums> sum = sums();
    size_t at = 0;
    while (true) {
      size_t best = 0;
      for (size_t i = at + 1; i < static_cast<size_t>(nodes_[at].end);
           i = static_cast<size_t>(nodes_[i].end)) {
        if (nodes_[i].tag != Tag::Text && (best == 0 || sum[i].prose > sum[best].prose)) best = i;
      }
      if (best == 0 || sum[best].prose == 0) return at;
      const double share = static_cast<double>(sum[best].prose) /
                           static_cast<double>(std::max<int64_t>(sum[at].prose, 1));
      const Tag tag = nodes_[best].tag;
      if (!is_block(tag) && tag != Tag::Other && tag != Tag::Span && tag != Tag::Font) return at;
      if (tag == Tag::P || tag == Tag::Li || tag == Tag::Ul || tag == Tag::Ol || tag == Tag::Pre ||
          tag == Tag::Blockquote || tag == Tag::Dl) {
        return at;
      }
      const bool named = names_content(page_, nodes_[best]);
      if (share < (named ? 0.5 : 0.8)) return at;
      at = best;
    }
  }

  void keep_within(size_t main) {
    std::erase_if(lines_, [&](const PageLine& line) {
      return line.node < static_cast<int32_t>(main) || line.node >= nodes_[main].end;
    });
    main_ = main;
  }

  // Lines of the article's element that are no part of its text.
  void judge_lines(const std::string& title) {
    const auto is_prose = [](const PageLine& line) {
      return !line.row && (prose_of(line) > 0 || line.pre);
    };
    std::vector<char> drop(lines_.size(), 0);
    // Links side by side: lists of them, and lines that are nothing else.
    for (size_t i = 0; i < lines_.size(); ++i) {
      const PageLine& line = lines_[i];
      if (line.pre || line.row) {
        if (line.link_density() > 0.7 && line.row) drop[i] = 1;
        continue;
      }
      if (line.link_density() > 0.65) drop[i] = 1;
      if (link_line(line.text)) drop[i] = 1;
      if (!title.empty() && line.text == title && (line.heading || line.units < 200) && i < 12)
        drop[i] = 1;
    }
    for (size_t i = 0; i < lines_.size(); ++i) {
      // A link among sentences of a list is part of it.
      if (drop[i] && lines_[i].item && i > 0 && i + 1 < lines_.size() && !drop[i - 1] &&
          !drop[i + 1] && lines_[i - 1].item && lines_[i + 1].item) {
        drop[i] = 0;
      }
    }
    apply(drop);
    // What stands before the first running text: heading, author, date.
    size_t first = 0;
    while (first < lines_.size() && !is_prose(lines_[first])) ++first;
    if (first < lines_.size()) {
      drop.assign(lines_.size(), 0);
      for (size_t i = 0; i < first; ++i) {
        const PageLine& line = lines_[i];
        const bool stays = line.row || line.item ||
                           (line.units >= 30 && !line.heading && ends_sentence(line.text));
        drop[i] = !stays || dated_line(line.text) ? 1 : 0;
        if (line.heading && i + 1 == first && line.text != title && node(line.block).tag >= Tag::H2)
          drop[i] = 0;
      }
      apply(drop);
      // And behind the last: headings of nothing, short remains. A list or table that follows the
      // text at once belongs to it.
      size_t last = lines_.size();
      while (last > 0 && !closes_text(lines_[last - 1])) --last;
      while (last < lines_.size() && (lines_[last].row || lines_[last].item)) ++last;
      lines_.resize(last);
    }
  }

  void apply(const std::vector<char>& drop) {
    size_t out = 0;
    for (size_t i = 0; i < lines_.size(); ++i) {
      if (drop[i]) continue;
      if (out != i) lines_[out] = std::move(lines_[i]);
      ++out;
    }
    lines_.resize(out);
  }

  // A heading that begins something else ("Related", "Comments") takes along what follows it in the
  // element that it heads.
  void cut_sections() {
    std::vector<char> drop(lines_.size(), 0);
    for (size_t i = 0; i < lines_.size(); ++i) {
      if (drop[i] || lines_[i].units > 60 || !heads_other(lines_[i].text)) continue;
      // Up from the line while it is the first text there.
      int32_t top = lines_[i].block;
      while (top > static_cast<int32_t>(main_) && node(top).parent > static_cast<int32_t>(main_) &&
             (i == 0 || lines_[i - 1].node < node(top).parent)) {
        top = node(top).parent;
      }
      int32_t end = node(top).end;
      int64_t units = 0, all = 0;
      size_t j = i;
      // A bare heading: to the end of its parent.
      const bool bare = j + 1 >= lines_.size() || lines_[j + 1].node >= end;
      if (bare) end = node(node(top).parent).end;
      const int32_t parent = node(lines_[i].block).parent;
      for (; j < lines_.size() && lines_[j].node < end; ++j) {
        // A line between the paragraphs: they go on behind it.
        if (j > i && !lines_[i].heading && prose_of(lines_[j]) > 0 &&
            node(lines_[j].block).parent == parent) {
          break;
        }
        units += prose_of(lines_[j]);
      }
      for (const PageLine& line : lines_) all += prose_of(line);
      if (units * 2 > all && (bare || all - units < kLeastArticle)) {
        drop[i] = 1;
        continue;
      }
      for (size_t k = i; k < j; ++k) drop[k] = 1;
    }
    apply(drop);
  }

  static constexpr int64_t kLeastArticle = 400;  // units of running text
  const HtmlPage& page_;
  const std::vector<HtmlNode>& nodes_;
  std::vector<char> skipped_;
  std::vector<PageLine> lines_;
  size_t main_ = 0;
};

}  // namespace

PageText extract_page(const HtmlPage& page) { return Scorer(page).extract(); }

}  // namespace quern
