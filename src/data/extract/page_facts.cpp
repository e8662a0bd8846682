#include "data/extract/page_facts.h"

#include <algorithm>
#include <array>
#include <unordered_set>
#include <vector>

#include "data/extract/page_lines.h"

namespace quern {
namespace {

std::string plain(std::string_view text) {
  std::string out;
  bool space = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f') {
      space = !out.empty();
      continue;
    }
    if (text.substr(i).starts_with("\xC2\xA0")) {
      space = !out.empty();
      ++i;
      continue;
    }
    if (space) out += ' ';
    space = false;
    out += c;
  }
  return out;
}

std::string text_of(const HtmlPage& page, size_t node, size_t most = 2000) {
  std::string out;
  const auto& nodes = page.nodes();
  for (size_t i = node + 1; i < static_cast<size_t>(nodes[node].end) && out.size() < most; ++i) {
    if (nodes[i].tag == Tag::Text) out += nodes[i].text;
    if (nodes[i].tag == Tag::Br) out += ' ';
  }
  return plain(out);
}

std::string_view meta(const HtmlPage& page, std::initializer_list<std::string_view> names) {
  std::vector<std::string_view> found(names.size());
  for (const HtmlNode& node : page.nodes()) {
    if (node.tag != Tag::Meta) continue;
    for (const std::string_view key : {"property", "name", "itemprop", "http-equiv"}) {
      std::string name(page.attribute(node, key));
      if (name.empty() || name.size() > 64) continue;
      std::ranges::transform(name, name.begin(),
                             [](unsigned char c) { return c < 128 ? std::tolower(c) : c; });
      const auto* at = std::ranges::find(names, name);
      if (at == names.end()) continue;
      auto& slot = found[static_cast<size_t>(at - names.begin())];
      if (slot.empty()) slot = page.attribute(node, "content");
    }
  }
  for (const std::string_view value : found) {
    if (!value.empty()) return value;
  }
  return {};
}

// The first YYYY-MM-DD (or YYYY/MM/DD, YYYYMMDD) of a text; empty where none is valid.
std::string date_in(std::string_view text) {
  const auto digit = [&](size_t i) { return i < text.size() && text[i] >= '0' && text[i] <= '9'; };
  for (size_t i = 0; i + 8 <= text.size(); ++i) {
    if (!(digit(i) && digit(i + 1) && digit(i + 2) && digit(i + 3)) || (i > 0 && digit(i - 1)))
      continue;
    const int year = (text[i] - '0') * 1000 + (text[i + 1] - '0') * 100 + (text[i + 2] - '0') * 10 +
                     (text[i + 3] - '0');
    if (year < 1900 || year > 2100) continue;
    size_t at = i + 4;
    const bool packed = digit(at);
    const auto skip = [&] {
      for (const std::string_view sep : {"-", "/", ".", "年", "月", "년 ", "월 "}) {
        if (text.substr(at).starts_with(sep)) {
          at += sep.size();
          return true;
        }
      }
      return false;
    };
    const auto number = [&](int& out) {
      if (!digit(at)) return false;
      out = text[at++] - '0';
      if (digit(at)) out = out * 10 + (text[at++] - '0');
      return true;
    };
    int month = 0, day = 0;
    if (!packed && !skip()) continue;
    if (!number(month)) continue;
    if (!packed && !skip()) continue;
    if (!number(day)) continue;
    if (month < 1 || month > 12 || day < 1 || day > 31) continue;
    const std::string m = std::to_string(month), d = std::to_string(day);
    return std::to_string(year) + (month < 10 ? "-0" : "-") + m + (day < 10 ? "-0" : "-") + d;
  }
  return {};
}

}  // namespace

std::string page_title(const HtmlPage& page) {
  const auto& nodes = page.nodes();
  std::string title;
  std::vector<std::string> headings;
  for (size_t i = 1; i < nodes.size(); ++i) {
    const Tag tag = nodes[i].tag;
    if (tag == Tag::Title && title.empty()) title = text_of(page, i);
    if (tag == Tag::Svg) i = static_cast<size_t>(nodes[i].end) - 1;
    if (tag == Tag::H1 && headings.size() < 8) headings.push_back(text_of(page, i));
  }
  std::erase(headings, std::string());
  const std::string stated = plain(meta(page, {"og:title", "twitter:title", "dc.title"}));
  for (const std::string& heading : headings) {
    if (heading.size() > 3 && (title.starts_with(heading) || heading == stated)) return heading;
  }
  for (const std::string& heading : headings) {
    if (heading.size() > 8 && title.find(heading) != std::string::npos) return heading;
  }
  // The site's name stands behind a separator, more rarely before one.
  if (!title.empty()) {
    std::vector<std::string> parts;
    size_t begin = 0;
    for (size_t i = 0; i < title.size(); ++i) {
      for (const std::string_view sep :
           {" - ", " | ", " – ", " — ", " · ", " » ", " :: ", "_", "｜", "|"}) {
        if (!std::string_view(title).substr(i).starts_with(sep)) continue;
        parts.push_back(title.substr(begin, i - begin));
        begin = i + sep.size();
        i = begin - 1;
        break;
      }
    }
    if (!parts.empty()) {
      parts.push_back(title.substr(begin));
      // The longest beginning that stands alone on the page.
      std::unordered_set<std::string> blocks;
      for (size_t i = 1; i < nodes.size(); ++i) {
        if (is_block(nodes[i].tag) && nodes[i].end - static_cast<int32_t>(i) < 12)
          blocks.insert(text_of(page, i, 400));
      }
      for (size_t end = title.size(); end > 0;) {
        const std::string head = plain(title.substr(0, end));
        if (head != title && blocks.contains(head)) return head;
        size_t cut = std::string::npos;
        for (const std::string_view sep :
             {" - ", " | ", " – ", " — ", " · ", " » ", " :: ", "_", "｜", "|"}) {
          const size_t found = title.rfind(sep, end - 1);
          if (found != std::string::npos && found < end &&
              (cut == std::string::npos || found > cut))
            cut = found;
        }
        if (cut == std::string::npos) break;
        end = cut;
      }
      if (stated.empty()) {
        const auto longest =
            std::ranges::max_element(parts, {}, [](const std::string& s) { return s.size(); });
        return plain(*longest);
      }
    }
  }
  if (!stated.empty()) return stated;
  if (!title.empty()) return title;
  return headings.empty() ? std::string() : headings.front();
}

std::string page_date(const HtmlPage& page) {
  const std::string stated = date_in(
      meta(page, {"article:published_time", "og:published_time", "datepublished", "date", "dc.date",
                  "dc.date.issued", "pubdate", "publishdate", "publish_date", "parsely-pub-date",
                  "sailthru.date", "article:published", "cxenseparse:recs:publishtime",
                  "article.published", "og:article:published_time", "published_time_telegram"}));
  if (!stated.empty()) return stated;
  for (const auto& [type, script] : page.scripts()) {
    if (type != "application/ld+json") continue;
    for (const std::string_view key : {"\"datePublished\"", "\"dateCreated\""}) {
      const size_t at = script.find(key);
      if (at == std::string_view::npos) continue;
      std::string date = date_in(script.substr(at + key.size(), 40));
      if (!date.empty()) return date;
    }
  }
  std::string first;
  for (size_t i = 1; i < page.nodes().size(); ++i) {
    const HtmlNode& node = page.nodes()[i];
    if (node.tag == Tag::Text) continue;
    const bool published = page.attribute(node, "itemprop") == "datePublished";
    if (node.tag != Tag::Time && !published) continue;
    std::string date = date_in(page.attribute(node, "datetime"));
    if (date.empty()) date = date_in(page.attribute(node, "content"));
    if (date.empty()) date = date_in(text_of(page, i, 80));
    if (date.empty()) continue;
    if (published) return date;
    if (first.empty()) first = date;
  }
  if (!first.empty()) return first;
  // A short line near the heading.
  int seen = 0;
  for (const HtmlNode& node : page.nodes()) {
    if (node.tag != Tag::Text || node.text.size() > 200) continue;
    if (page.nodes()[static_cast<size_t>(node.parent)].tag == Tag::Script) continue;
    std::string date = date_in(node.text);
    if (!date.empty()) return date;
    if (++seen > 400) break;
  }
  return {};
}

std::string page_language(const HtmlPage& page) {
  for (const HtmlNode& node : page.nodes()) {
    if (node.tag != Tag::Html && node.tag != Tag::Body) continue;
    for (const std::string_view key : {"lang", "xml:lang"}) {
      const std::string value = plain(page.attribute(node, key));
      if (!value.empty() && value.size() < 36) return value;
    }
  }
  std::string value =
      plain(meta(page, {"content-language", "og:locale", "dc.language", "language"}));
  value.resize(std::min(value.find(','), value.size()));
  std::ranges::replace(value, '_', '-');
  return value.size() < 36 ? value : std::string();
}

std::string page_address(const HtmlPage& page) {
  for (const HtmlNode& node : page.nodes()) {
    if (node.tag == Tag::Link && page.attribute(node, "rel") == "canonical") {
      const std::string value = plain(page.attribute(node, "href"));
      if (value.starts_with("http")) return value;
    }
  }
  return plain(meta(page, {"og:url"}));
}

}  // namespace quern
