#include "data/extract/charset.h"

#include <iconv.h>
#include <uchardet/uchardet.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/ascii.h"
#include "core/error.h"
#include "core/utf8.h"

namespace quern {
namespace {

struct Charset {
  std::string_view name;   // of the Encoding Standard
  std::string_view iconv;  // glibc's name of the superset that browsers read
};

constexpr Charset kCharsets[] = {
    {"utf-8", "UTF-8"},
    {"utf-16le", "UTF-16LE"},
    {"utf-16be", "UTF-16BE"},
    {"utf-32le", "UTF-32LE"},
    {"utf-32be", "UTF-32BE"},
    {"gb18030", "GB18030"},
    {"big5", "BIG5-HKSCS"},
    {"shift_jis", "CP932"},
    {"euc-jp", "EUC-JP-MS"},
    {"iso-2022-jp", "ISO-2022-JP-3"},
    {"euc-kr", "CP949"},
    {"koi8-r", "KOI8-R"},
    {"koi8-u", "KOI8-U"},
    {"windows-1250", "CP1250"},
    {"windows-1251", "CP1251"},
    {"windows-1252", "CP1252"},
    {"windows-1253", "CP1253"},
    {"windows-1254", "CP1254"},
    {"windows-1255", "CP1255"},
    {"windows-1256", "CP1256"},
    {"windows-1257", "CP1257"},
    {"windows-1258", "CP1258"},
    {"windows-874", "CP874"},
    {"iso-8859-2", "ISO-8859-2"},
    {"iso-8859-3", "ISO-8859-3"},
    {"iso-8859-4", "ISO-8859-4"},
    {"iso-8859-5", "ISO-8859-5"},
    {"iso-8859-6", "ISO-8859-6"},
    {"iso-8859-7", "ISO-8859-7"},
    {"iso-8859-8", "ISO-8859-8"},
    {"iso-8859-10", "ISO-8859-10"},
    {"iso-8859-13", "ISO-8859-13"},
    {"iso-8859-14", "ISO-8859-14"},
    {"iso-8859-15", "ISO-8859-15"},
    {"iso-8859-16", "ISO-8859-16"},
    {"ibm866", "IBM866"},
    {"macintosh", "MACINTOSH"},
    {"x-mac-cyrillic", "MAC-CYRILLIC"},
};

// The charset that a label means; null for one that nobody knows.
const Charset* by_label(std::string_view label) {
  static const std::unordered_map<std::string_view, std::string_view> kLabels = {
      {"utf8", "utf-8"},
      {"unicode-1-1-utf-8", "utf-8"},
      {"utf-16", "utf-16le"},
      {"unicode", "utf-16le"},
      {"ucs-2", "utf-16le"},
      {"gb2312", "gb18030"},
      {"gbk", "gb18030"},
      {"gb_2312-80", "gb18030"},
      {"x-gbk", "gb18030"},
      {"cp936", "gb18030"},
      {"chinese", "gb18030"},
      {"hz-gb-2312", "gb18030"},
      {"big5-hkscs", "big5"},
      {"cn-big5", "big5"},
      {"x-x-big5", "big5"},
      {"cp950", "big5"},
      {"sjis", "shift_jis"},
      {"shift-jis", "shift_jis"},
      {"x-sjis", "shift_jis"},
      {"windows-31j", "shift_jis"},
      {"ms_kanji", "shift_jis"},
      {"cp932", "shift_jis"},
      {"x-euc-jp", "euc-jp"},
      {"eucjp", "euc-jp"},
      {"euckr", "euc-kr"},
      {"uhc", "euc-kr"},
      {"cp949", "euc-kr"},
      {"windows-949", "euc-kr"},
      {"ks_c_5601-1987", "euc-kr"},
      {"ks_c_5601-1989", "euc-kr"},
      {"ksc5601", "euc-kr"},
      {"ksc_5601", "euc-kr"},
      {"korean", "euc-kr"},
      {"koi8", "koi8-r"},
      {"koi8_r", "koi8-r"},
      {"koi8-ru", "koi8-u"},
      {"cp1250", "windows-1250"},
      {"cp1251", "windows-1251"},
      {"win-1251", "windows-1251"},
      {"win1251", "windows-1251"},
      {"windows1251", "windows-1251"},
      {"cp1252", "windows-1252"},
      {"iso-8859-1", "windows-1252"},
      {"iso8859-1", "windows-1252"},
      {"iso_8859-1", "windows-1252"},
      {"latin1", "windows-1252"},
      {"latin-1", "windows-1252"},
      {"us-ascii", "windows-1252"},
      {"ascii", "windows-1252"},
      {"iso-8859-9", "windows-1254"},
      {"latin5", "windows-1254"},
      {"iso-8859-11", "windows-874"},
      {"tis-620", "windows-874"},
      {"iso-8859-8-i", "iso-8859-8"},
      {"cp866", "ibm866"},
      {"maccyrillic", "x-mac-cyrillic"},
      {"mac-cyrillic", "x-mac-cyrillic"},
  };
  std::string small(label.substr(0, 40));
  std::erase_if(small, [](char c) { return c == ' ' || c == '"' || c == '\''; });
  std::ranges::transform(small, small.begin(), [](char c) { return ascii_lower(c); });
  std::string_view name = small;
  if (const auto found = kLabels.find(name); found != kLabels.end()) name = found->second;
  const auto* found = std::ranges::find(kCharsets, name, &Charset::name);
  return found == std::end(kCharsets) ? nullptr : found;
}

struct Decoded {
  std::string utf8;
  size_t errors = 0;
};

Decoded convert(std::string_view bytes, const Charset& charset) {
  struct Closer {
    void operator()(void* handle) const { ::iconv_close(handle); }
  };
  const iconv_t raw = ::iconv_open("UTF-8", std::string(charset.iconv).c_str());
  if (raw == reinterpret_cast<iconv_t>(-1)) {
    throw Error(Kind::Unsupported, "iconv of this system has no " + std::string(charset.iconv));
  }
  const std::unique_ptr<void, Closer> handle(raw);
  Decoded out;
  std::array<char, 16384> buffer;
  auto* in = const_cast<char*>(bytes.data());
  size_t left = bytes.size();
  while (left > 0) {
    char* to = buffer.data();
    size_t room = buffer.size();
    const size_t result = ::iconv(handle.get(), &in, &left, &to, &room);
    out.utf8.append(buffer.data(), buffer.size() - room);
    if (result != static_cast<size_t>(-1)) continue;
    if (errno == E2BIG) continue;
    // A byte, or a unit of UTF-16 and UTF-32, that means nothing.
    const size_t unit = charset.name.starts_with("utf-16")   ? 2
                        : charset.name.starts_with("utf-32") ? 4
                                                             : 1;
    const size_t skip = std::min(unit, left);
    in += skip;
    left -= skip;
    ++out.errors;
    out.utf8 += "\xEF\xBF\xBD";
    ::iconv(handle.get(), nullptr, nullptr, nullptr, nullptr);
  }
  std::erase(out.utf8, '\0');
  return out;
}

uint32_t next_character(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) {
    return static_cast<uint32_t>(static_cast<unsigned char>(text[i]));
  };
  const uint32_t c = byte(at);
  const size_t length = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
  if (at + length > text.size()) {
    at = text.size();
    return 0xFFFD;
  }
  uint32_t value = length == 1 ? c : c & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) value = value << 6 | (byte(at + i) & 63);
  at += length;
  return value;
}

// Characters that texts of these scripts are full of: what a wrong charset gives hardly has them.
const std::unordered_set<uint32_t>& common_characters() {
  static const std::unordered_set<uint32_t> set = [] {
    std::unordered_set<uint32_t> out;
    const std::string_view all =
        "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年"
        "过发后作里用道"
        "行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心本前开但因只从"
        "想实日军者意无"
        "力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应向头文体政美"
        "相见被利什二等"
        "产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名"
        "真论处走义各入"
        "几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直"
        "德资命山金指克"
        "許這個們來為國說時會對過發後裡還沒動現當進樣開從實軍無與長機經學種兩關點業問間將應頭體見話"
        "變總電數報結"
        "務場計資產給門認題氣別東聲員論處義條幾據區設統務執則點選項請網頁關於新聞"
        "日本語今年月時間分会社人者的方法事出来見行言思上下前後新高大小中学生東京都市私何気手目心"
        "、。「」『』，：；？！“”·…（）—";
    for (size_t at = 0; at < all.size();) out.insert(next_character(all, at));
    const std::string_view hangul =
        "이다는을가의에고지하기로를사도은한어아자그리나서시들인대있었것해수전정부일여상보원제장스주"
        "인면라만조공과으"
        "소모성오구비우동국안유용세니했까려게되며와신당위선연계생경실관미방치던된할때없않중무내적등"
        "더간년요거마화";
    for (size_t at = 0; at < hangul.size();) out.insert(next_character(hangul, at));
    return out;
  }();
  return set;
}

// How much a text looks like one: 0 to about 1, by its characters beyond ASCII.
double plausibility(const Decoded& decoded) {
  const std::string_view text = decoded.utf8;
  int64_t seen = 0;
  double good = 0;
  uint32_t before = ' ';
  for (size_t at = 0; at < text.size() && seen < 20000;) {
    const uint32_t c = next_character(text, at);
    const uint32_t last = before;
    before = c;
    if (c < 0x80) continue;
    ++seen;
    if (c == 0xFFFD) {
      good -= 8;
    } else if (c < 0xA0 || (c >= 0xE000 && c < 0xF900) || c >= 0xF0000) {
      good -= 3;  // controls, private use
    } else if (c >= 0x3041 && c < 0x30FF) {
      good += 0.9;  // kana
    } else if (c >= 0xFF61 && c < 0xFFA0) {
      good -= 0.5;  // half-width kana: what other charsets turn into
    } else if (common_characters().contains(c)) {
      good += 1;
    } else if (c >= 0xAC00 && c < 0xD7A4) {
      good += 0.4;
    } else if (c >= 0x4E00 && c < 0xA000) {
      good += 0.15;
    } else if (c >= 0x410 && c < 0x450) {
      // Cyrillic: small letters behind letters, as KOI8-R and windows-1251 swap the cases.
      const bool small = c >= 0x430;
      const bool after_small = last >= 0x430 && last < 0x450;
      static constexpr std::string_view kFrequent = "оеаинтсрвл";
      good += small ? 0.6 : after_small ? -1 : 0.2;
      for (size_t i = 0; i < kFrequent.size();) {
        if (next_character(kFrequent, i) == c) good += 0.4;
      }
    } else if (c >= 0xC0 && c < 0x250) {
      const bool letter_beside = (last | 0x20) >= 'a' && (last | 0x20) <= 'z' && last < 0x80;
      good += letter_beside ? 0.6 : -0.2;  // letters with accents stand beside others
    } else if (c >= 0x2010 && c < 0x2040) {
      good += 0.5;
    } else if ((c >= 0x370 && c < 0x600) || (c >= 0xE00 && c < 0xE80) ||
               (c >= 0x600 && c < 0x700)) {
      good += 0.6;
    }
  }
  return seen == 0 ? 0 : good / static_cast<double>(seen);
}

// Tags, scripts and styles say nothing about the charset of the text.
std::string text_sample(std::string_view bytes) {
  std::string out;
  for (size_t at = 0; at < bytes.size() && out.size() < (1 << 16);) {
    if (bytes[at] == '<') {
      const size_t end = bytes.find('>', at);
      if (end != std::string_view::npos && end - at < 2000) {
        out += ' ';
        at = end + 1;
        continue;
      }
    }
    out += bytes[at++];
  }
  return out;
}

std::string detect(std::string_view bytes) {
  struct Deleter {
    void operator()(uchardet_t detector) const { ::uchardet_delete(detector); }
  };
  const std::unique_ptr<uchardet, Deleter> detector(::uchardet_new());
  if (::uchardet_handle_data(detector.get(), bytes.data(), bytes.size()) != 0) return {};
  ::uchardet_data_end(detector.get());
  return ::uchardet_get_charset(detector.get());
}

std::string meta_charset(std::string_view bytes) {
  std::string head(bytes.substr(0, 4096));
  std::ranges::transform(head, head.begin(), [](char c) { return ascii_lower(c); });
  for (size_t at = head.find("<meta"); at != std::string::npos; at = head.find("<meta", at + 5)) {
    const std::string tag = head.substr(at, head.find('>', at) - at);
    std::string charset = charset_parameter(tag);
    if (!charset.empty()) return charset;
  }
  if (head.starts_with("<?xml")) {
    const size_t at = head.find("encoding=");
    if (at != std::string::npos && at < head.find("?>")) {
      const size_t begin = at + 10;
      return head.substr(begin, head.find_first_of("\"'", begin) - begin);
    }
  }
  return {};
}

// UTF-16 and UTF-32 without a mark: every other byte of ASCII is NUL.
const Charset* by_zeros(std::string_view bytes) {
  const size_t size = std::min<size_t>(bytes.size(), 4096) & ~size_t{3};
  if (size < 16) return nullptr;
  std::array<size_t, 4> zeros = {};
  for (size_t i = 0; i < size; ++i) zeros[i & 3] += bytes[i] == '\0' ? 1 : 0;
  const size_t quarter = size / 4;
  const auto most = [&](int i) { return zeros[static_cast<size_t>(i)] * 10 > quarter * 7; };
  if (most(1) && most(2) && most(3) && !most(0)) return by_label("utf-32le");
  if (most(0) && most(1) && most(2) && !most(3)) return by_label("utf-32be");
  const auto some = [&](int i) { return zeros[static_cast<size_t>(i)] * 10 > quarter * 2; };
  const auto few = [&](int i) { return zeros[static_cast<size_t>(i)] * 50 < quarter; };
  if (some(1) && some(3) && few(0) && few(2)) return by_label("utf-16le");
  if (some(0) && some(2) && few(1) && few(3)) return by_label("utf-16be");
  return nullptr;
}

}  // namespace

std::string charset_parameter(std::string_view content_type) {
  std::string text(content_type);
  std::ranges::transform(text, text.begin(), [](char c) { return ascii_lower(c); });
  size_t at = text.find("charset");
  if (at == std::string::npos) return {};
  at = text.find_first_not_of(" \t", at + 7);
  if (at == std::string::npos || text[at] != '=') return {};
  at = text.find_first_not_of(" \t\"'", at + 1);
  if (at == std::string::npos) return {};
  return text.substr(at, text.find_first_of(" \t\"';,/>", at) - at);
}

DecodedText decode_text(std::string_view bytes, std::string_view header, bool html) {
  const auto as = [](std::string_view rest, const Charset& charset) {
    return DecodedText{convert(rest, charset).utf8, std::string(charset.name)};
  };
  const auto plain = [](std::string_view rest) {
    DecodedText out = {std::string(rest), "utf-8"};
    std::erase(out.utf8, '\0');
    return out;
  };
  if (bytes.starts_with("\xEF\xBB\xBF")) {
    const std::string_view rest = bytes.substr(3);
    return utf8::is_valid(rest) ? plain(rest) : as(rest, *by_label("utf-8"));
  }
  if (bytes.starts_with(std::string_view("\xFF\xFE\0\0", 4))) {
    return as(bytes.substr(4), *by_label("utf-32le"));
  }
  if (bytes.starts_with(std::string_view("\0\0\xFE\xFF", 4))) {
    return as(bytes.substr(4), *by_label("utf-32be"));
  }
  if (bytes.starts_with("\xFF\xFE")) return as(bytes.substr(2), *by_label("utf-16le"));
  if (bytes.starts_with("\xFE\xFF")) return as(bytes.substr(2), *by_label("utf-16be"));
  if (const Charset* wide = by_zeros(bytes)) return as(bytes, *wide);
  const std::string_view stated_header = header;
  if (utf8::is_valid(bytes)) {
    if (bytes.find("\x1B$") != std::string_view::npos) return as(bytes, *by_label("iso-2022-jp"));
    return plain(bytes);
  }

  std::vector<const Charset*> candidates;
  const auto add = [&](const Charset* charset) {
    if (charset != nullptr && !charset->name.starts_with("utf-16") &&
        !charset->name.starts_with("utf-32") &&
        std::ranges::find(candidates, charset) == candidates.end()) {
      candidates.push_back(charset);
    }
  };
  add(by_label(charset_parameter(stated_header)));
  if (html) add(by_label(meta_charset(bytes)));
  const size_t declared = candidates.size();
  const std::string sample = text_sample(bytes);
  add(by_label(detect(sample)));
  for (const std::string_view name : {"gb18030", "big5", "shift_jis", "euc-jp", "euc-kr",
                                      "windows-1251", "koi8-r", "utf-8", "windows-1252"}) {
    add(by_label(name));
  }
  const Charset* best = nullptr;
  double best_score = -1e9;
  for (size_t i = 0; i < candidates.size(); ++i) {
    // What is declared, then what detection says, wins where the others are hardly better.
    const double bonus = i < declared ? 0.12 : i == declared ? 0.06 : 0;
    const double score = plausibility(convert(sample, *candidates[i])) + bonus;
    if (score > best_score) {
      best_score = score;
      best = candidates[i];
    }
  }
  return as(bytes, *best);
}

}  // namespace quern
