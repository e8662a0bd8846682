#include "data/extract/html_tags.h"

#include <array>
#include <unordered_map>

namespace quern {
namespace {

enum Flag : uint8_t { kVoid = 1, kRaw = 2, kEndsParagraph = 4, kHead = 8, kBlock = 16 };

struct Row {
  std::string_view name;
  Tag tag;
  int flags = 0;
};
constexpr Row kRows[] = {
    {"a", Tag::A},
    {"abbr", Tag::Abbr},
    {"address", Tag::Address, kEndsParagraph | kBlock},
    {"area", Tag::Area, kVoid},
    {"article", Tag::Article, kEndsParagraph | kBlock},
    {"aside", Tag::Aside, kEndsParagraph | kBlock},
    {"audio", Tag::Audio},
    {"b", Tag::B},
    {"base", Tag::Base, kVoid | kHead},
    {"blockquote", Tag::Blockquote, kEndsParagraph | kBlock},
    {"body", Tag::Body, kBlock},
    {"br", Tag::Br, kVoid},
    {"button", Tag::Button},
    {"canvas", Tag::Canvas},
    {"caption", Tag::Caption, kBlock},
    {"center", Tag::Center, kEndsParagraph | kBlock},
    {"cite", Tag::Cite},
    {"code", Tag::Code},
    {"col", Tag::Col, kVoid},
    {"dd", Tag::Dd, kEndsParagraph | kBlock},
    {"del", Tag::Del},
    {"details", Tag::Details, kEndsParagraph | kBlock},
    {"dialog", Tag::Dialog, kEndsParagraph | kBlock},
    {"dir", Tag::Dir, kEndsParagraph | kBlock},
    {"div", Tag::Div, kEndsParagraph | kBlock},
    {"dl", Tag::Dl, kEndsParagraph | kBlock},
    {"dt", Tag::Dt, kEndsParagraph | kBlock},
    {"em", Tag::Em},
    {"embed", Tag::Embed, kVoid},
    {"fieldset", Tag::Fieldset, kEndsParagraph | kBlock},
    {"figcaption", Tag::Figcaption, kEndsParagraph | kBlock},
    {"figure", Tag::Figure, kEndsParagraph | kBlock},
    {"font", Tag::Font},
    {"footer", Tag::Footer, kEndsParagraph | kBlock},
    {"form", Tag::Form, kEndsParagraph | kBlock},
    {"frame", Tag::Frame, kVoid},
    {"frameset", Tag::Frameset},
    {"h1", Tag::H1, kEndsParagraph | kBlock},
    {"h2", Tag::H2, kEndsParagraph | kBlock},
    {"h3", Tag::H3, kEndsParagraph | kBlock},
    {"h4", Tag::H4, kEndsParagraph | kBlock},
    {"h5", Tag::H5, kEndsParagraph | kBlock},
    {"h6", Tag::H6, kEndsParagraph | kBlock},
    {"head", Tag::Head, kHead},
    {"header", Tag::Header, kEndsParagraph | kBlock},
    {"hgroup", Tag::Hgroup, kEndsParagraph | kBlock},
    {"hr", Tag::Hr, kVoid | kEndsParagraph | kBlock},
    {"html", Tag::Html, kBlock},
    {"i", Tag::I},
    {"iframe", Tag::Iframe, kRaw},
    {"img", Tag::Img, kVoid},
    {"input", Tag::Input, kVoid},
    {"label", Tag::Label},
    {"legend", Tag::Legend, kBlock},
    {"li", Tag::Li, kEndsParagraph | kBlock},
    {"link", Tag::Link, kVoid | kHead},
    {"main", Tag::Main, kEndsParagraph | kBlock},
    {"math", Tag::Math},
    {"menu", Tag::Menu, kEndsParagraph | kBlock},
    {"meta", Tag::Meta, kVoid | kHead},
    {"nav", Tag::Nav, kEndsParagraph | kBlock},
    {"noembed", Tag::Noembed, kRaw},
    {"noframes", Tag::Noframes, kRaw},
    {"noscript", Tag::Noscript, kHead},
    {"object", Tag::Object},
    {"ol", Tag::Ol, kEndsParagraph | kBlock},
    {"optgroup", Tag::Optgroup},
    {"option", Tag::Option},
    {"p", Tag::P, kEndsParagraph | kBlock},
    {"param", Tag::Param, kVoid},
    {"pre", Tag::Pre, kEndsParagraph | kBlock},
    {"q", Tag::Q},
    {"s", Tag::S},
    {"script", Tag::Script, kRaw | kHead},
    {"section", Tag::Section, kEndsParagraph | kBlock},
    {"select", Tag::Select},
    {"small", Tag::Small},
    {"source", Tag::Source, kVoid},
    {"span", Tag::Span},
    {"strong", Tag::Strong},
    {"style", Tag::Style, kRaw | kHead},
    {"sub", Tag::Sub},
    {"summary", Tag::Summary, kEndsParagraph | kBlock},
    {"sup", Tag::Sup},
    {"svg", Tag::Svg},
    {"table", Tag::Table, kEndsParagraph | kBlock},
    {"tbody", Tag::Tbody, kBlock},
    {"td", Tag::Td, kBlock},
    {"template", Tag::Template, kHead},
    {"textarea", Tag::Textarea, kRaw},
    {"tfoot", Tag::Tfoot, kBlock},
    {"th", Tag::Th, kBlock},
    {"thead", Tag::Thead, kBlock},
    {"time", Tag::Time},
    {"title", Tag::Title, kRaw | kHead},
    {"tr", Tag::Tr, kBlock},
    {"track", Tag::Track, kVoid},
    {"tt", Tag::Tt},
    {"u", Tag::U},
    {"ul", Tag::Ul, kEndsParagraph | kBlock},
    {"var", Tag::Var},
    {"video", Tag::Video},
    {"wbr", Tag::Wbr, kVoid},
    {"xmp", Tag::Xmp, kRaw},
};

constexpr auto kByTag = [] {
  std::array<Row, kTags> rows{};
  rows[static_cast<size_t>(Tag::Other)].flags = kHead;
  for (const Row& row : kRows) rows[static_cast<size_t>(row.tag)] = row;
  return rows;
}();

bool has(Tag tag, Flag flag) noexcept {
  return (kByTag[static_cast<size_t>(tag)].flags & flag) != 0;
}

}  // namespace

Tag tag_of(std::string_view name) noexcept {
  static const auto kByName = [] {
    std::unordered_map<std::string_view, Tag> names;
    for (const Row& row : kRows) names.emplace(row.name, row.tag);
    return names;
  }();
  const auto found = kByName.find(name);
  return found == kByName.end() ? Tag::Other : found->second;
}

std::string_view name_of(Tag tag) noexcept { return kByTag[static_cast<size_t>(tag)].name; }

bool is_void(Tag tag) noexcept { return has(tag, kVoid); }
bool is_raw(Tag tag) noexcept { return has(tag, kRaw); }
bool ends_paragraph(Tag tag) noexcept { return has(tag, kEndsParagraph); }
bool belongs_in_head(Tag tag) noexcept { return has(tag, kHead); }
bool is_block(Tag tag) noexcept { return has(tag, kBlock); }

}  // namespace quern
