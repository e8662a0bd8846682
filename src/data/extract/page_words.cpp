#include "data/extract/page_words.h"

#include <algorithm>
#include <string>
#include <unordered_map>

#include "core/ascii.h"

namespace quern {
namespace {

// Words of names, with and without the plural's s.
const std::unordered_map<std::string_view, NamedRole>& roles() {
  using enum NamedRole;
  static const std::unordered_map<std::string_view, NamedRole> words = {
      {"comment", Comments},
      {"commentlist", Comments},
      {"disqus", Comments},
      {"respond", Comments},
      {"discussion", Comments},
      {"pinglun", Comments},
      {"livefyre", Comments},
      {"replies", Comments},
      {"reply", Comments},
      {"share", Aside},
      {"sharing", Aside},
      {"sharedaddy", Aside},
      {"social", Aside},
      {"related", Aside},
      {"recommend", Aside},
      {"recommended", Aside},
      {"recommendation", Aside},
      {"recirc", Aside},
      {"sidebar", Aside},
      {"footer", Aside},
      {"nav", Aside},
      {"navigation", Aside},
      {"navbar", Aside},
      {"menu", Aside},
      {"breadcrumb", Aside},
      {"crumb", Aside},
      {"cookie", Aside},
      {"consent", Aside},
      {"gdpr", Aside},
      {"ad", Aside},
      {"advert", Aside},
      {"advertisement", Aside},
      {"advertising", Aside},
      {"adsense", Aside},
      {"sponsor", Aside},
      {"sponsored", Aside},
      {"promo", Aside},
      {"promotion", Aside},
      {"newsletter", Aside},
      {"subscribe", Aside},
      {"subscription", Aside},
      {"signup", Aside},
      {"popup", Aside},
      {"modal", Aside},
      {"lightbox", Aside},
      {"taboola", Aside},
      {"outbrain", Aside},
      {"trending", Aside},
      {"popular", Aside},
      {"mostread", Aside},
      {"pagination", Aside},
      {"pager", Aside},
      {"login", Aside},
      {"search", Aside},
      {"toolbar", Aside},
      {"skip", Aside},
      {"outbound", Aside},
      {"xiangguan", Aside},
      {"fenxiang", Aside},
      {"daohang", Aside},
      {"guanggao", Aside},
      {"banquan", Aside},
      {"paywall", Aside},
      {"readmore", Aside},
      {"seealso", Aside},
      {"noprint", Aside},
      {"hidden", Aside},
      {"aside", Aside},
      {"teaser", Aside},
      {"upsell", Aside},
      {"tags", Aside},
      {"taglist", Aside},
      {"author", Note},
      {"byline", Note},
      {"bio", Note},
      {"meta", Note},
      {"metadata", Note},
      {"dateline", Note},
      {"timestamp", Note},
      {"date", Note},
      {"published", Note},
      {"caption", Note},
      {"credit", Note},
      {"copyright", Note},
      {"tag", Note},
      {"rating", Note},
      {"widget", Note},
      {"banner", Note},
      {"more", Note},
      {"prev", Note},
      {"next", Note},
      {"disclaimer", Note},
      {"follow", Note},
      {"download", Note},
      {"print", Note},
      {"tools", Note},
      {"info", Note},
      {"figcaption", Note},
      {"category", Note},
      {"categories", Note},
      {"contributor", Note},
      {"views", Note},
      {"gallery", Note},
      {"slideshow", Note},
      {"carousel", Note},
      {"correction", Note},
      {"source", Note},
      {"foot", Note},
      {"alert", Note},
      {"notice", Note},
      {"player", Note},
      {"video", Note},
      {"toc", Note},
  };
  return words;
}

// Calls `see` with each word of a name in lower case: "entry-content", "articleBody" are two.
template <class See>
void for_each_word(std::string_view names, See see) {
  std::string word;
  const auto end = [&] {
    if (!word.empty()) see(std::string_view(word));
    word.clear();
  };
  for (size_t i = 0; i < names.size() && i < 400; ++i) {
    const char c = names[i];
    const bool letter = ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z';
    if (!letter) {
      end();
      continue;
    }
    if (c >= 'A' && c <= 'Z' && i > 0 && names[i - 1] >= 'a' && names[i - 1] <= 'z') end();
    word += ascii_lower(c);
  }
  end();
}

std::string lowered(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char c) { return ascii_lower(c); });
  return out;
}

}  // namespace

NamedRole named_role(const HtmlPage& page, const HtmlNode& node) {
  if (node.tag == Tag::Aside) return NamedRole::Aside;
  if (node.tag == Tag::Figcaption || node.tag == Tag::Time) return NamedRole::Note;
  if (node.attribute_count == 0) return NamedRole::None;
  const std::string_view role = page.attribute(node, "role");
  if (role == "navigation" || role == "complementary" || role == "contentinfo" ||
      role == "banner" || role == "dialog" || role == "search") {
    return NamedRole::Aside;
  }
  NamedRole out = NamedRole::None;
  for (const std::string_view name : {page.attribute(node, "class"), page.attribute(node, "id")}) {
    for_each_word(name, [&](std::string_view word) {
      auto found = roles().find(word);
      if (found == roles().end() && word.size() > 3 && word.back() == 's') {
        found = roles().find(word.substr(0, word.size() - 1));
      }
      if (found != roles().end()) out = std::max(out, found->second);
    });
  }
  return out;
}

bool names_content(const HtmlPage& page, const HtmlNode& node) {
  if (node.tag == Tag::Article || node.tag == Tag::Main) return true;
  if (page.attribute(node, "itemprop") == "articleBody") return true;
  bool what = false, part = false;
  for (const std::string_view name : {page.attribute(node, "class"), page.attribute(node, "id")}) {
    for_each_word(name, [&](std::string_view word) {
      what |= word == "article" || word == "entry" || word == "post" || word == "story" ||
              word == "main";
      part |= word == "body" || word == "content" || word == "text";
    });
  }
  return what && part;
}

bool heads_other(std::string_view line) {
  static constexpr std::string_view kHeads[] = {"related",        "recommended",
                                                "comments",       "leave a",
                                                "add a comment",  "post a comment",
                                                "more from",      "more stories",
                                                "more on this",   "read next",
                                                "read more",      "see also",
                                                "also read",      "you may also",
                                                "you might also", "trending",
                                                "most popular",   "most read",
                                                "popular",        "share this",
                                                "share on",       "share:",
                                                "tags:",          "tagged",
                                                "filed under",    "about the author",
                                                "about author",   "sign up",
                                                "subscribe",      "newsletter",
                                                "follow us",      "advertisement",
                                                "sponsored",      "latest news",
                                                "recent posts",   "further reading",
                                                "up next",        "discussion",
                                                "copyright",      "join the conversation",
                                                "top stories",    "editors' picks",
                                                "don't miss",     "responses to",
                                                "网友评论",       "评论",
                                                "相关",           "热门",
                                                "推荐",           "猜你喜欢",
                                                "延伸阅读",       "上一篇",
                                                "下一篇",         "分享到",
                                                "标签",           "網友",
                                                "評論",           "相關",
                                                "熱門",           "推薦",
                                                "最新文章",       "阅读排行",
                                                "点击排行",       "今日点击",
                                                "责任编辑",       "版权",
                                                "комментарии",    "читайте также",
                                                "похожие",        "популярное",
                                                "смотрите также", "по теме",
                                                "теги",           "поделиться",
                                                "метки",          "コメント",
                                                "関連",           "人気",
                                                "おすすめ",       "ランキング",
                                                "あわせて",       "最新記事",
                                                "タグ",           "シェア",
                                                "댓글",           "관련",
                                                "인기",           "추천",
                                                "많이 본",        "태그",
                                                "공유",           "kommentare",
                                                "ähnliche",       "verwandte",
                                                "das könnte",     "commentaires",
                                                "articles liés",  "à lire aussi",
                                                "lire aussi",     "comentarios",
                                                "comentários",    "relacionad",
                                                "artigos",        "leia também",
                                                "te puede",       "lea también",
                                                "commenti",       "articoli correlati",
                                                "leggi anche",    "potrebbe",
                                                "ti potrebbe",    "voce também",
                                                "você também",    "você pode",
                                                "también te"};
  std::string text = lowered(line);
  // Cyrillic and the accents of Latin in upper case.
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    const auto a = static_cast<unsigned char>(text[i]), b = static_cast<unsigned char>(text[i + 1]);
    if (a == 0xD0 && b >= 0x90 && b <= 0x9F) text[i + 1] = static_cast<char>(b + 0x20);
    if (a == 0xD0 && b >= 0xA0 && b <= 0xAF) {
      text[i] = '\xD1';
      text[i + 1] = static_cast<char>(b - 0x20);
    }
  }
  size_t begin = 0;
  while (begin < text.size() && static_cast<unsigned char>(text[begin]) < 0x80 &&
         !(text[begin] >= 'a' && text[begin] <= 'z')) {
    ++begin;
  }
  const std::string_view rest = std::string_view(text).substr(begin);
  return std::ranges::any_of(kHeads, [&](std::string_view head) { return rest.starts_with(head); });
}

bool link_line(std::string_view line) {
  static constexpr std::string_view kStarts[] = {"read more",
                                                 "read also",
                                                 "also read",
                                                 "see also",
                                                 "share this",
                                                 "click here to subscribe",
                                                 "related:",
                                                 "read:",
                                                 "more:",
                                                 "watch:",
                                                 "photo:",
                                                 "image:",
                                                 "photos:",
                                                 "image credit",
                                                 "photo credit",
                                                 "follow us on",
                                                 "follow @",
                                                 "sign up for",
                                                 "subscribe to",
                                                 "advertisement",
                                                 "story continues below",
                                                 "scroll to continue",
                                                 "continue reading",
                                                 "loading...",
                                                 "skip to",
                                                 "tags:",
                                                 "filed under",
                                                 "categories:",
                                                 "posted in",
                                                 "source:",
                                                 "via:",
                                                 "click to",
                                                 "all rights reserved",
                                                 "copyright ",
                                                 "©",
                                                 "(c) "};
  const std::string text = lowered(line.substr(0, 64));
  return line.size() < 300 && std::ranges::any_of(kStarts, [&](std::string_view start) {
           return text.starts_with(start);
         });
}

bool dated_line(std::string_view line) {
  if (line.size() > 160) return false;
  int digits = 0;
  bool year = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const bool digit = line[i] >= '0' && line[i] <= '9';
    digits += digit ? 1 : 0;
    if (line.substr(i).starts_with("19") || line.substr(i).starts_with("20")) {
      const std::string_view four = line.substr(i, 4);
      year |= four.size() == 4 &&
              std::ranges::all_of(four, [](char c) { return c >= '0' && c <= '9'; });
    }
  }
  return year && digits >= 5;
}

}  // namespace quern
