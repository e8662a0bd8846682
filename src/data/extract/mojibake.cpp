#include "data/extract/mojibake.h"

#include <iconv.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/python_text.h"
#include "core/utf8.h"
#include "data/extract/html_page.h"

namespace quern {
namespace {

constexpr int kMostRounds = 4;  // of the same mistake made again and again
constexpr char32_t kLost = 0xFFFD;

std::string utf8_of(std::u32string_view points) {
  std::string out;
  for (const char32_t point : points) utf8::append(out, point);
  return out;
}

// Converts with iconv; nothing where a part of it has no meaning in `to`.
std::optional<std::string> convert(std::string_view bytes, const char* from, const char* to) {
  const iconv_t handle = ::iconv_open(to, from);
  if (handle == reinterpret_cast<iconv_t>(-1)) return std::nullopt;
  std::string out(bytes.size() * 4 + 16, '\0');
  char* in = const_cast<char*>(bytes.data());
  char* at = out.data();
  size_t left = bytes.size(), room = out.size();
  const size_t result = ::iconv(handle, &in, &left, &at, &room);
  ::iconv_close(handle);
  if (result == static_cast<size_t>(-1)) return std::nullopt;
  out.resize(out.size() - room);
  return out;
}

// A single-byte charset as those read it who made the mistake: what has no meaning is the control
// character of that byte.
struct Charset {
  const char* name;
  // Its letters are those of running text in another script, so that a pair of them may be no mistake:
  // only a text that is broken throughout is repaired.
  bool throughout;
  std::unordered_map<char32_t, uint8_t> bytes;
};

std::vector<Charset> make_charsets() {
  std::vector<Charset> all;
  for (const auto& [name, throughout] :
       std::initializer_list<std::pair<const char*, bool>>{{"CP1252", false},
                                                           {"CP1254", false},
                                                           {"CP1250", true},
                                                           {"CP1251", true},
                                                           {"MACINTOSH", true},
                                                           {"CP437", true}}) {
    Charset charset{name, throughout, {}};
    for (int byte = 0x80; byte < 0x100; ++byte) {
      const char character = static_cast<char>(byte);
      const auto read = convert({&character, 1}, name, "UTF-8");
      const char32_t point = read ? utf8::decode(*read).value : static_cast<char32_t>(byte);
      charset.bytes.emplace(point, static_cast<uint8_t>(byte));
    }
    // Latin-1's control characters: the same mistake by a stricter reader.
    for (int byte = 0x80; !throughout && byte < 0xA0; ++byte) {
      charset.bytes.emplace(static_cast<char32_t>(byte), static_cast<uint8_t>(byte));
    }
    all.push_back(std::move(charset));
  }
  return all;
}
const std::vector<Charset>& charsets() {
  static const std::vector<Charset> kCharsets = make_charsets();
  return kCharsets;
}

bool is_lower(char32_t point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(point)) == UTF8PROC_CATEGORY_LL;
}
bool is_upper(char32_t point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(point)) == UTF8PROC_CATEGORY_LU;
}

bool is_letter(char32_t point) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(point))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return true;
    default:
      return false;
  }
}
// Of mathematics, or a picture: √, ├.
bool is_sign(char32_t point) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(point));
  return category == UTF8PROC_CATEGORY_SM || category == UTF8PROC_CATEGORY_SO;
}

// Whether a text may hold it: assigned, and no control, private or lone surrogate.
bool is_text(char32_t point) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(point))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CS:
      return false;
    default:
      return true;
  }
}

// Marks that follow capitals in clean text, too: quotes, dashes, dots.
bool is_punctuation_of_text(char32_t point) {
  constexpr std::u32string_view kMarks =
      U"\u2018\u2019\u201A\u201C\u201D\u201E\u2013\u2014\u2026\u2039\u203A\u00AB\u00BB\u00B7\u00A0";
  return kMarks.find(point) != kMarks.npos;
}

// One character of UTF-8 whose bytes stand as characters of a charset.
struct Sequence {
  size_t begin = 0, length = 0;
  char32_t point = 0;
  bool sure = true;  // hardly to be met with in clean text
};

std::optional<uint8_t> byte_of(const Charset& charset, char32_t point) {
  const auto found = charset.bytes.find(point);
  return found == charset.bytes.end() ? std::nullopt : std::optional(found->second);
}

std::optional<Sequence> sequence_at(const Charset& charset, std::u32string_view text, size_t at) {
  const std::optional<uint8_t> lead = byte_of(charset, text[at]);
  if (!lead || *lead < 0xC2 || *lead > 0xF4) return std::nullopt;
  const size_t length = *lead < 0xE0 ? 2 : *lead < 0xF0 ? 3 : 4;
  std::string bytes(1, static_cast<char>(*lead));
  bool lost = false;
  for (size_t i = 1; i < length; ++i) {
    if (at + i >= text.size()) return std::nullopt;
    const char32_t point = text[at + i];
    std::optional<uint8_t> byte = byte_of(charset, point);
    // A no-break space that became a space; a closing quote's last byte, which windows-1252 lacks.
    if (point == ' ' && *lead == 0xC3) byte = 0xA0;
    if (point == kLost && bytes == "\xE2\x80") byte = 0x9D;
    lost = lost || point == ' ';
    if (!byte || *byte < 0x80 || *byte > 0xBF) return std::nullopt;
    bytes += static_cast<char>(*byte);
  }
  const utf8::Point decoded = utf8::decode(bytes);
  if (!decoded.valid || decoded.length != length) return std::nullopt;
  // A control character of Latin-1 may be a byte of the same mistake made before.
  const bool control = decoded.value >= 0x80 && decoded.value < 0xA0;
  if (!control && !is_text(decoded.value)) return std::nullopt;
  // "é »" with a no-break space: letters and marks of clean text that happen to be three such bytes.
  if (length == 3 && is_lower(text[at]) && is_punctuation_of_text(text[at + 1]) &&
      is_punctuation_of_text(text[at + 2])) {
    return std::nullopt;
  }
  Sequence found{at, length, decoded.value, !control};
  if (length == 2) {
    // A capital and a mark: the end of a word in capitals, or the beginning of one before a quote.
    const bool behind_capital = at > 0 && is_upper(text[at - 1]);
    const bool behind_small = at > 0 && is_lower(text[at - 1]);
    const bool before_small = at + 2 < text.size() && is_lower(text[at + 2]);
    if (is_punctuation_of_text(text[at + 1])) found.sure = behind_small || before_small;
    if (*lead == 0xC3 && (lost || text[at + 1] == 0xA0)) found.sure = !behind_capital;
    if (control || (behind_capital && is_lower(text[at]))) found.sure = false;
  }
  return found;
}

bool is_ascii(char32_t point) noexcept { return point < 0x80; }

struct Repair {
  std::u32string text;
  size_t sequences = 0;
  size_t covered = 0;  // characters of the text that were bytes of others
  bool whole = false;  // all that are not ASCII
};

// The text with all sequences of a charset put together; nothing where there is too little to go by.
std::optional<Repair> undo(const Charset& charset, std::u32string_view text) {
  std::vector<Sequence> found;
  size_t foreign = 0, covered = 0, sure = 0;
  for (size_t i = 0; i < text.size();) {
    if (is_ascii(text[i])) {
      ++i;
      continue;
    }
    if (const auto sequence = sequence_at(charset, text, i)) {
      found.push_back(*sequence);
      for (size_t j = 0; j < sequence->length; ++j) foreign += !is_ascii(text[i + j]);
      covered += sequence->length;
      sure += sequence->sure;
      i += sequence->length;
      continue;
    }
    ++foreign;
    ++i;
  }
  if (sure == 0) return std::nullopt;
  if (charset.throughout) {
    // Signs that no word has, as in "├╝", "√≥": they may stand beside others that are right. A lone
    // pair is too little where its second half is a letter, too.
    const auto begins_with_sign = [&](const Sequence& s) { return is_sign(text[s.begin]); };
    const auto ends_in_letter = [&](const Sequence& s) { return is_letter(text[s.begin + 1]); };
    const bool odd = std::ranges::all_of(found, begins_with_sign);
    const bool whole = covered * 10 >= foreign * 9 &&
                       (covered >= 4 || std::ranges::none_of(found, ends_in_letter));
    if (!odd && !whole) return std::nullopt;
  }
  Repair repair;
  size_t at = 0;
  for (const Sequence& sequence : found) {
    // What is not sure is believed where something else in the text is.
    if (!sequence.sure && found.size() == 1) continue;
    repair.text += text.substr(at, sequence.begin - at);
    repair.text += sequence.point;
    at = sequence.begin + sequence.length;
    ++repair.sequences;
  }
  repair.text += text.substr(at);
  repair.covered = covered;
  repair.whole = covered >= foreign;
  return repair;
}

bool is_han(char32_t point) noexcept { return point >= 0x4E00 && point < 0xA000; }
bool is_kana(char32_t point) noexcept { return point >= 0x3041 && point < 0x3100; }

// Text whose bytes of two each were read as single ones: GBK and Shift_JIS. Every run of foreign
// characters must make sense, and what comes out must look like the language of that charset.
std::optional<std::u32string> undo_double_bytes(std::u32string_view text) {
  const Charset& latin = charsets().front();
  std::string bytes;
  size_t foreign = 0, longest = 0, run = 0;
  for (const char32_t point : text) {
    if (is_ascii(point)) {
      bytes += static_cast<char>(point);
      run = 0;
      continue;
    }
    const auto byte = byte_of(latin, point);
    if (!byte) return std::nullopt;
    bytes += static_cast<char>(*byte);
    ++foreign;
    longest = std::max(longest, ++run);
  }
  if (foreign < 6) return std::nullopt;
  for (const char* charset : {"GBK", "CP932"}) {
    // GB2312 has no ASCII among its bytes.
    if (longest < 4 && std::strcmp(charset, "GBK") == 0) continue;
    const auto read = convert(bytes, charset, "UTF-8");
    if (!read) continue;
    const std::u32string points = python::points(*read);
    size_t letters = 0, han = 0, common = 0, kana = 0;
    for (const char32_t point : points) {
      if (is_ascii(point)) continue;
      ++letters;
      han += is_han(point);
      kana += is_kana(point);
      // The characters of GB2312, which hold nearly all of running text.
      if (is_han(point)) {
        std::string one;
        utf8::append(one, point);
        common += convert(one, "UTF-8", "GB2312").has_value();
      }
    }
    const bool chinese = std::strcmp(charset, "GBK") == 0;
    if (chinese ? han * 10 >= letters * 6 && common * 20 >= han * 19 && kana * 20 <= letters
                : kana * 10 >= letters * 3 && (han + kana) * 10 >= letters * 7) {
      return points;
    }
  }
  return std::nullopt;
}

// UTF-8 read as GBK: every character two bytes. Chinese text is hardly ever valid so.
std::optional<std::u32string> undo_gbk(std::u32string_view text) {
  size_t han = 0;
  for (const char32_t point : text) han += is_han(point);
  if (han < 3) return std::nullopt;
  const auto bytes = convert(utf8_of(text), "UTF-8", "GBK");
  if (!bytes || !utf8::is_valid(*bytes)) return std::nullopt;
  const std::u32string points = python::points(*bytes);
  const auto strange = [](char32_t point) { return !is_ascii(point) && !is_text(point); };
  if (std::ranges::any_of(points, strange)) return std::nullopt;
  return points;
}

std::u32string undo_decoding(std::u32string text) {
  for (int round = 0; round < kMostRounds; ++round) {
    std::optional<Repair> best;
    for (const Charset& charset : charsets()) {
      auto repair = undo(charset, text);
      if (repair && (!best || repair->covered > best->covered)) best = std::move(repair);
    }
    if (!best || !best->whole) {
      if (auto points = undo_double_bytes(text)) return *std::move(points);
      if (auto points = undo_gbk(text)) return *std::move(points);
    }
    if (!best || best->sequences == 0) break;
    text = std::move(best->text);
  }
  return text;
}

// Entities with their semicolon, where the text is no markup.
std::string unescape(std::string_view text) {
  if (text.find('<') != text.npos) return std::string(text);
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t end = text[i] == '&' ? text.find(';', i) : text.npos;
    if (end == text.npos || end - i > 32) {
      out += text[i++];
      continue;
    }
    const std::string_view entity = text.substr(i, end + 1 - i);
    const std::string read = decode_references(entity);
    // What names nothing stays; of "&current;" the old "&curren" is none.
    if (read == entity || (read.size() > 1 && read.ends_with(';'))) {
      out += text[i++];
      continue;
    }
    out += read;
    i = end + 1;
  }
  return out;
}

const char* ligature(char32_t point) {
  constexpr const char* kLatin[] = {"ff", "fi", "fl", "ffi", "ffl", "\xC5\xBFt", "st"};
  return point >= 0xFB00 && point <= 0xFB06 ? kLatin[point - 0xFB00] : nullptr;
}

bool is_full_width(char32_t point) noexcept { return point >= 0xFF01 && point <= 0xFF5E; }

// Control characters that no text needs, and marks that belong to none.
bool is_removed(char32_t point) noexcept {
  return (point < 0x20 && point != '\n' && point != '\t' && point != 0x0C) || point == 0x7F ||
         (point >= 0x80 && point < 0xA0) || (point >= 0x206A && point <= 0x206F) ||
         point == 0xFEFF || (point >= 0xFFF9 && point <= 0xFFFC);
}

// Length of what tells a terminal its colours, ESC [ 1 ; 31 m, or of ESC alone.
size_t terminal_escape(std::u32string_view text) noexcept {
  if (text.size() < 2 || text[1] != '[') return 1;
  size_t end = 2;
  while (end < text.size() && ((text[end] >= '0' && text[end] <= '9') || text[end] == ';')) ++end;
  return end < text.size() && is_ascii(text[end]) ? end + 1 : 1;
}

std::string compose(const std::string& text) {
  utf8proc_uint8_t* composed = nullptr;
  const auto size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &composed,
                   static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  if (size < 0) return text;
  std::string out(reinterpret_cast<const char*>(composed), static_cast<size_t>(size));
  std::free(composed);
  return out;
}

std::string clean_up(std::u32string_view text) {
  // Among Chinese, Japanese or Korean a full-width letter is a choice.
  const bool eastern = std::ranges::any_of(text, [](char32_t point) {
    return is_han(point) || is_kana(point) || (point >= 0xAC00 && point < 0xD7B0);
  });
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char32_t point = text[i];
    if (point == 0x1B) {
      i += terminal_escape(text.substr(i)) - 1;
    } else if (point == '\r' || point == 0x85 || point == 0x2028 || point == 0x2029) {
      if (point == '\r' && i + 1 < text.size() && text[i + 1] == '\n') ++i;
      out += '\n';
    } else if (const char* letters = ligature(point)) {
      out += letters;
    } else if (!eastern && is_full_width(point)) {
      out += static_cast<char>(point - 0xFEE0);
    } else if (!is_removed(point)) {
      utf8::append(out, point);
    }
  }
  return compose(out);
}

}  // namespace

std::string repair_text(std::string_view text) {
  // Most text is ASCII without anything to repair.
  const auto plain = [](char c) {
    return (c >= 0x20 && c < 0x7F && c != '&') || c == '\n' || c == '\t';
  };
  if (std::ranges::all_of(text, plain)) return std::string(text);
  return clean_up(undo_decoding(python::points(unescape(text))));
}

}  // namespace quern
