#include "data/stages/words.h"

#include <utf8proc.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <string>
#include <unordered_map>

#include "core/ascii.h"
#include "core/python_text.h"
#include "core/utf8.h"

namespace quern {
namespace {

// A character of a chunk: its value and where it begins.
struct Character {
  char32_t value;
  uint32_t begin;
};

using Chunk = std::vector<Character>;  // with one after the last, of value 0

utf8proc_category_t category(char32_t c) noexcept {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

bool is_digit(char32_t c) noexcept { return c >= '0' && c <= '9'; }
bool is_upper(char32_t c) noexcept {
  if (c < 0x80) return c >= 'A' && c <= 'Z';
  const auto kind = category(c);
  return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LT ||
         kind == UTF8PROC_CATEGORY_LO;
}
bool is_lower(char32_t c) noexcept {
  if (c < 0x80) return c >= 'a' && c <= 'z';
  const auto kind = category(c);
  return kind == UTF8PROC_CATEGORY_LL || kind == UTF8PROC_CATEGORY_LO;
}
bool is_alpha(char32_t c) noexcept { return is_upper(c) || is_lower(c); }

bool one_of(char32_t c, std::u32string_view set) noexcept {
  return set.find(c) != std::u32string_view::npos;
}

constexpr std::u32string_view kPunctuation = U"…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪";
constexpr std::u32string_view kQuotes = U"'\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉⟦⟧";
constexpr std::u32string_view kCurrency =
    U"$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹"
    U"₺"
    U"₻"
    U"₼"
    U"₾"
    U"₿";

bool is_icon(char32_t c) noexcept {
  return c >= 0x80 && c != U'°' && category(c) == UTF8PROC_CATEGORY_SO;
}

// Words that spaCy's English tables keep whole or split in their own way; `parts` are lengths in
// bytes.
struct Special {
  std::string_view word;
  std::array<uint8_t, 3> parts;  // 0: no more
};

constexpr std::string_view kAbbreviations[] = {
    "a.m.",    "Adm.",  "Bros.", "co.",   "Co.",   "Corp.", "D.C.",  "Dr.",   "e.g.",  "E.g.",
    "E.G.",    "Gen.",  "Gov.",  "i.e.",  "I.e.",  "I.E.",  "Inc.",  "Jr.",   "Ltd.",  "Md.",
    "Messrs.", "Mo.",   "Mont.", "Mr.",   "Mrs.",  "Ms.",   "p.m.",  "Ph.D.", "Prof.", "Rep.",
    "Rev.",    "Sen.",  "St.",   "vs.",   "v.s.",  "Jan.",  "Feb.",  "Mar.",  "Apr.",  "Jun.",
    "Jul.",    "Aug.",  "Sep.",  "Sept.", "Oct.",  "Nov.",  "Dec.",  "Ala.",  "Ariz.", "Ark.",
    "Calif.",  "Colo.", "Conn.", "Del.",  "Fla.",  "Ga.",   "Ia.",   "Id.",   "Ill.",  "Ind.",
    "Kan.",    "Kans.", "Ky.",   "La.",   "Mass.", "Mich.", "Minn.", "Miss.", "N.C.",  "N.D.",
    "N.H.",    "N.J.",  "N.M.",  "N.Y.",  "Neb.",  "Nebr.", "Nev.",  "Okla.", "Ore.",  "Pa.",
    "S.C.",    "Tenn.", "Va.",   "Wash.", "Wis.",  "C++",   "o.O",   "XD",    "xD",    "'d"};

constexpr Special kContractions[] = {
    {"cannot", {3, 3, 0}}, {"Cannot", {3, 3, 0}},    {"gonna", {3, 2, 0}},
    {"Gonna", {3, 2, 0}},  {"gotta", {3, 2, 0}},     {"Gotta", {3, 2, 0}},
    {"let's", {3, 2, 0}},  {"Let's", {3, 2, 0}},     {"ain't", {2, 3, 0}},
    {"Ain't", {2, 3, 0}},  {"can't", {2, 3, 0}},     {"Can't", {2, 3, 0}},
    {"won't", {2, 3, 0}},  {"Won't", {2, 3, 0}},     {"shan't", {3, 3, 0}},
    {"Shan't", {3, 3, 0}}, {"don't", {2, 3, 0}},     {"Don't", {2, 3, 0}},
    {"y'all", {2, 3, 0}},  {"how'd", {3, 2, 0}},     {"'cause", {6, 0, 0}},
    {"'Cause", {6, 0, 0}}, {"o'clock", {7, 0, 0}},   {"ma'am", {5, 0, 0}},
    {"Ma'am", {5, 0, 0}},  {"'em", {3, 0, 0}},       {"doin'", {5, 0, 0}},
    {"goin'", {5, 0, 0}},  {"nothin'", {7, 0, 0}},   {"nuthin'", {7, 0, 0}},
    {"ol'", {3, 0, 0}},    {"somethin'", {9, 0, 0}}, {"Not've", {3, 3, 0}},
    {"not've", {3, 3, 0}}};

constexpr std::string_view kNegated[] = {
    "are",  "could", "did",   "does", "do",     "had", "has",  "have",  "is", "may", "might",
    "must", "need",  "ought", "sha",  "should", "was", "were", "would", "ca", "wo",  "dare"};
constexpr std::string_view kPronouns[] = {"i",    "you",   "he",   "she",   "it",    "we",
                                          "they", "that",  "this", "there", "who",   "what",
                                          "when", "where", "why",  "how",   "those", "these"};
constexpr std::string_view kModals[] = {"might", "must", "should", "would", "could", "had"};

// The parts of a special word as byte lengths; empty where it is none.
std::vector<size_t> special_parts(std::string_view word) {
  if (word.size() > 12 || word.size() < 2) return {};
  if (word.size() == 2 && word[1] == '.' && is_lower(static_cast<unsigned char>(word[0]))) {
    return {2};
  }
  for (const std::string_view one : kAbbreviations) {
    if (one == word) return {word.size()};
  }
  // The typographic apostrophe stands for the plain one.
  std::string plain;
  std::vector<size_t> at;  // where each byte of `plain` begins in `word`
  for (size_t i = 0; i < word.size();) {
    at.push_back(i);
    if (word.substr(i).starts_with("’")) {
      plain += '\'';
      i += 3;
    } else {
      plain += word[i++];
    }
  }
  at.push_back(word.size());
  const auto lengths = [&](std::initializer_list<size_t> ends) {
    std::vector<size_t> out;
    size_t last = 0;
    for (const size_t end : ends) {
      out.push_back(at[end] - at[last]);
      last = end;
    }
    return out;
  };
  for (const Special& one : kContractions) {
    if (one.word != plain) continue;
    const size_t first = one.parts[0];
    return first == plain.size() ? lengths({first}) : lengths({first, plain.size()});
  }
  const std::string lower = ascii_lower(plain);
  if (lower.ends_with("n't")) {
    for (const std::string_view verb : kNegated) {
      if (lower.size() == verb.size() + 3 && lower.starts_with(verb)) {
        return lengths({verb.size(), plain.size()});
      }
    }
  }
  for (const std::string_view end : {"'ll", "'ve", "'re", "'d", "'m", "'s"}) {
    if (!lower.ends_with(end)) continue;
    const size_t stem = lower.size() - end.size();
    const std::string_view word_before = std::string_view(lower).substr(0, stem);
    const auto holds = [&](const auto& list) {
      return std::ranges::find(list, word_before) != std::end(list);
    };
    if (holds(kPronouns) || (end == "'ve" && holds(kModals))) return lengths({stem, plain.size()});
  }
  // Times: 10am is two words, and so is 10a.m.
  size_t digits = 0;
  while (digits < word.size() && is_digit(static_cast<unsigned char>(word[digits]))) ++digits;
  if (digits > 0 && digits <= 2) {
    const std::string_view rest = word.substr(digits);
    if (rest == "am" || rest == "pm" || rest == "a.m." || rest == "p.m.") {
      return {digits, word.size() - digits};
    }
  }
  return {};
}

constexpr std::u32string_view kUnits[] = {
    U"km²",  U"km³", U"km",  U"m²", U"m³",   U"dm", U"cm²", U"cm³", U"cm", U"mm²", U"mm³", U"mm",
    U"ha",   U"µm",  U"nm",  U"yd", U"in",   U"ft", U"kg",  U"mg",  U"µg", U"lb",  U"oz",  U"m/s",
    U"km/h", U"mph", U"hPa", U"Pa", U"mbar", U"mb", U"MB",  U"kb",  U"KB", U"gb",  U"GB",  U"tb",
    U"TB",   U"m",   U"g",   U"t",  U"T",    U"G",  U"M",   U"K",   U"%"};

// spaCy cuts affixes off both ends of what stands between white space, then splits inside.
class ChunkSplitter {
 public:
  ChunkSplitter(std::string_view text, const Chunk& chunk, std::vector<std::string_view>& out)
      : text_(text), c_(chunk), out_(out) {}

  void split() {
    size_t begin = 0, end = c_.size() - 1;
    std::vector<std::pair<size_t, size_t>> suffixes;
    while (begin < end) {
      if (!special_parts(view(begin, end)).empty()) break;
      const size_t prefix = prefix_length(begin, end);
      if (prefix > 0 && begin + prefix < end && !special_parts(view(begin + prefix, end)).empty()) {
        add(begin, begin + prefix);
        begin += prefix;
        break;
      }
      const size_t suffix = suffix_length(begin + prefix, end);
      if (suffix > 0 && end - suffix > begin && !special_parts(view(begin, end - suffix)).empty()) {
        suffixes.emplace_back(end - suffix, end);
        end -= suffix;
        break;
      }
      if (prefix == 0 && suffix == 0) break;
      if (prefix > 0) {
        add(begin, begin + prefix);
        begin += prefix;
      }
      if (suffix > 0 && begin < end) {
        suffixes.emplace_back(end - suffix, end);
        end -= suffix;
      }
    }
    if (begin < end) middle(begin, end);
    for (auto one = suffixes.rbegin(); one != suffixes.rend(); ++one) add(one->first, one->second);
  }

 private:
  std::string_view view(size_t begin, size_t end) const {
    return text_.substr(c_[begin].begin, c_[end].begin - c_[begin].begin);
  }
  void add(size_t begin, size_t end) { out_.push_back(view(begin, end)); }
  char32_t at(size_t i) const { return c_[i].value; }

  size_t dots(size_t begin, size_t end) const {
    size_t count = 0;
    while (begin + count < end && at(begin + count) == '.') ++count;
    return count;
  }

  size_t prefix_length(size_t begin, size_t end) const {
    const char32_t c = at(begin);
    if (is_alpha(c) || is_digit(c)) {
      if (begin + 1 < end && at(begin + 1) == '$' && (c == 'C' || c == 'A')) return 2;
      if (c == 'U' && begin + 2 < end && at(begin + 1) == 'S' && at(begin + 2) == '$') return 3;
      return 0;
    }
    if (c == U'…' && begin + 1 < end && at(begin + 1) == U'…') return 2;
    if (c == '.') {
      const size_t count = dots(begin, end);
      return count >= 2 ? count : 0;
    }
    if (c == '+') return begin + 1 < end && is_digit(at(begin + 1)) ? 0 : 1;
    if (one_of(c, U"§%=—–") || one_of(c, kPunctuation) || one_of(c, kQuotes) ||
        one_of(c, kCurrency) || is_icon(c)) {
      return 1;
    }
    return 0;
  }

  size_t suffix_length(size_t begin, size_t end) const {
    if (begin >= end) return 0;
    const char32_t c = at(end - 1);
    const size_t length = end - begin;
    if ((c == 's' || c == 'S') && length >= 2 && one_of(at(end - 2), U"'’")) return 2;
    if (c == '.') {
      size_t count = 0;
      while (count < length && at(end - 1 - count) == '.') ++count;
      if (count >= 2) return count;
      if (length < 2) return 0;
      const char32_t before = at(end - 2);
      if (is_digit(before) || is_lower(before) || one_of(before, U"%²-+") ||
          one_of(before, kQuotes) || one_of(before, kPunctuation)) {
        return 1;
      }
      return length >= 3 && is_upper(before) && is_upper(at(end - 3)) ? 1 : 0;
    }
    if (c == U'…' && length >= 2 && at(end - 2) == U'…') return 2;
    if (one_of(c, kPunctuation) || one_of(c, kQuotes) || one_of(c, U"—–") || is_icon(c)) return 1;
    const bool digit_before = length >= 2 && is_digit(at(end - 2));
    if (digit_before && (c == '+' || one_of(c, kCurrency))) return 1;
    for (const std::u32string_view unit : kUnits) {
      if (unit.size() >= length || !is_digit(at(end - unit.size() - 1))) continue;
      bool equal = true;
      for (size_t i = 0; equal && i < unit.size(); ++i)
        equal = at(end - unit.size() + i) == unit[i];
      if (equal) return unit.size();
    }
    return 0;
  }

  bool is_url(size_t begin, size_t end) const {
    const std::string_view text = view(begin, end);
    if (text.find("://") != std::string_view::npos) {
      const size_t colon = text.find("://");
      return colon > 0 && text.size() > colon + 5 &&
             text.find('.', colon) != std::string_view::npos;
    }
    if (text.find('@') != std::string_view::npos) {
      const size_t mark = text.find('@');
      return mark > 0 && text.find('.', mark) != std::string_view::npos && text.back() != '.';
    }
    // A host name: letters, digits and hyphens with dots, a lower-case top level.
    const std::string_view host = text.substr(0, text.find_first_of("/?#:"));
    const size_t dot = host.rfind('.');
    if (dot == std::string_view::npos || dot == 0 || host.size() - dot < 3) return false;
    for (const char c : host.substr(dot + 1)) {
      if (!is_lower(static_cast<unsigned char>(c))) return false;
    }
    for (const char c : host) {
      const auto u = static_cast<unsigned char>(c);
      if (!is_alpha(u) && !is_digit(u) && c != '.' && c != '-' && u < 0x80) return false;
    }
    return host.find("..") == std::string_view::npos;
  }

  // Length of the infix at `i`; 0 where there is none.
  size_t infix_length(size_t begin, size_t i, size_t end) const {
    const char32_t c = at(i);
    if (is_alpha(c) || is_digit(c)) return 0;
    if (c == '.' && dots(i, end) >= 2) return dots(i, end);
    if (c == U'…' || is_icon(c)) return 1;
    if (i == begin || i + 1 >= end) return 0;
    const char32_t before = at(i - 1), after = at(i + 1);
    if (one_of(c, U"+-*^") && is_digit(before) && (is_digit(after) || after == '-')) return 1;
    if (c == '.') {
      const bool left = is_lower(before) || one_of(before, kQuotes);
      return left && (is_upper(after) || one_of(after, kQuotes)) ? 1 : 0;
    }
    if (c == ',') return is_alpha(before) && is_alpha(after) ? 1 : 0;
    if (one_of(c, U"-–—~")) {
      size_t length = 1;
      if (c == '-' || c == U'—') {
        while (length < (c == '-' ? 3U : 2U) && i + length < end && at(i + length) == c) ++length;
      }
      for (; length > 0; --length) {
        if (is_alpha(before) && i + length < end && is_alpha(at(i + length))) return length;
      }
      return 0;
    }
    if (one_of(c, U":<>=/")) {
      return (is_alpha(before) || is_digit(before)) && is_alpha(after) ? 1 : 0;
    }
    return 0;
  }

  void middle(size_t begin, size_t end) {
    if (const auto parts = special_parts(view(begin, end)); !parts.empty()) {
      std::string_view rest = view(begin, end);
      for (const size_t part : parts) {
        out_.push_back(rest.substr(0, part));
        rest.remove_prefix(part);
      }
      return;
    }
    if (is_url(begin, end)) return add(begin, end);
    size_t start = begin;
    for (size_t i = begin; i < end;) {
      const size_t length = infix_length(begin, i, end);
      if (length == 0) {
        ++i;
        continue;
      }
      if (i > start) {
        add(start, i);
        add(i, i + length);
        start = i + length;
      }
      i += length;
    }
    if (start < end) add(start, end);
  }

  std::string_view text_;
  const Chunk& c_;
  std::vector<std::string_view>& out_;
};

// Words of ASCII letters alone, with a comma or full stop after them, are most of a text.
bool split_plain(std::string_view chunk, std::vector<std::string_view>& out) {
  size_t letters = 0;
  while (letters < chunk.size() && static_cast<unsigned char>((chunk[letters] | 0x20) - 'a') < 26) {
    ++letters;
  }
  if (letters == chunk.size()) {
    if (letters == 6 || letters == 5) {
      if (!special_parts(chunk).empty()) return false;
    }
    out.push_back(chunk);
    return true;
  }
  if (letters < 2 || letters + 1 != chunk.size()) return false;
  const char mark = chunk.back();
  if (mark != ',' && mark != ';' && mark != ':' && mark != '!' && mark != '?') return false;
  if (!special_parts(chunk.substr(0, letters)).empty()) return false;
  out.push_back(chunk.substr(0, letters));
  out.push_back(chunk.substr(letters));
  return true;
}

constexpr std::u32string_view kSentenceEnds =
    U"!.?"
    U"։؟۔܀܁܂߹।॥၊။።፧፨᙮᜵᜶᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿‼‽⁇⁈⁉⸮⸼꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗"
    U"！"
    U"．"
    U"？"
    U"｡"
    U"。";

bool is_punctuation(std::string_view word) {
  while (!word.empty()) {
    const utf8::Point next = utf8::decode(word);
    switch (category(next.value)) {
      case UTF8PROC_CATEGORY_PC:
      case UTF8PROC_CATEGORY_PD:
      case UTF8PROC_CATEGORY_PS:
      case UTF8PROC_CATEGORY_PE:
      case UTF8PROC_CATEGORY_PI:
      case UTF8PROC_CATEGORY_PF:
      case UTF8PROC_CATEGORY_PO:
        break;
      default:
        return false;
    }
    word.remove_prefix(next.length);
  }
  return true;
}

// Characters that are words by themselves: Han, kana, Hangul, Thai and its neighbours.
bool is_word_character(char32_t c) noexcept {
  return (c >= 0x3040 && c <= 0x30FF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0xAC00 && c <= 0xD7A3) ||
         (c >= 0x0E00 && c <= 0x0EFF) || (c >= 0x1780 && c <= 0x17FF) ||
         (c >= 0x1000 && c <= 0x109F) || (c >= 0xF900 && c <= 0xFAFF) ||
         (c >= 0x20000 && c <= 0x3FFFF);
}

}  // namespace

void split_words(std::string_view text, std::vector<std::string_view>& out) {
  Chunk chunk;
  for (size_t at = 0; at < text.size();) {
    const utf8::Point first = utf8::decode(text.substr(at));
    if (python::is_space(first.value)) {
      at += first.length;
      continue;
    }
    size_t end = at;
    chunk.clear();
    while (end < text.size()) {
      const auto byte = static_cast<unsigned char>(text[end]);
      const utf8::Point next =
          byte < 0x80 ? utf8::Point{byte, 1, true} : utf8::decode(text.substr(end));
      if (python::is_space(next.value)) break;
      chunk.push_back({next.value, static_cast<uint32_t>(end)});
      end += next.length;
    }
    if (!split_plain(text.substr(at, end - at), out)) {
      chunk.push_back({0, static_cast<uint32_t>(end)});
      ChunkSplitter(text, chunk, out).split();
    }
    at = end;
  }
}

bool ends_sentence(char32_t c) noexcept { return one_of(c, kSentenceEnds); }

int64_t count_sentences(std::string_view line) {
  std::vector<std::string_view> words;
  split_words(line, words);
  int64_t count = 0;
  bool open = false, ended = false;  // a sentence has begun; its end mark has been seen
  for (const std::string_view word : words) {
    const utf8::Point first = utf8::decode(word);
    const bool ends = first.length == word.size() && ends_sentence(first.value);
    if (!open || (ended && !ends && !is_punctuation(word))) {
      ++count;
      open = true;
      ended = false;
    }
    if (ends) ended = true;
  }
  return count;
}

void shingle_words(std::string_view text, std::vector<uint64_t>& out,
                   std::vector<WordPlace>* places) {
  std::string word;
  size_t begin = 0, end = 0;  // of the word's characters
  const auto flush = [&] {
    if (word.empty()) return;
    out.push_back(XXH3_64bits(word.data(), word.size()));
    if (places != nullptr) {
      places->push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
    }
    word.clear();
  };
  const auto grow = [&](size_t at, size_t length) {
    if (word.empty()) begin = at;
    end = at + length;
  };
  for (size_t at = 0; at < text.size();) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte < 0x80) {
      const auto lower = static_cast<char>(byte >= 'A' && byte <= 'Z' ? byte + 32 : byte);
      if ((lower >= 'a' && lower <= 'z') || is_digit(byte)) {
        grow(at, 1);
        word += lower;
      } else {
        flush();
      }
      ++at;
      continue;
    }
    const utf8::Point next = utf8::decode(text.substr(at));
    at += next.length;
    if (is_word_character(next.value)) {
      flush();
      grow(at - next.length, next.length);
      utf8::append(word, next.value);
      flush();
      continue;
    }
    switch (category(next.value)) {
      case UTF8PROC_CATEGORY_LU:
      case UTF8PROC_CATEGORY_LT:
      case UTF8PROC_CATEGORY_LL:
      case UTF8PROC_CATEGORY_LM:
      case UTF8PROC_CATEGORY_LO:
      case UTF8PROC_CATEGORY_MN:
      case UTF8PROC_CATEGORY_MC:
      case UTF8PROC_CATEGORY_ND:
        grow(at - next.length, next.length);
        utf8::append(word, static_cast<char32_t>(
                               utf8proc_tolower(static_cast<utf8proc_int32_t>(next.value))));
        break;
      default:
        flush();
    }
  }
  flush();
}

int64_t count_characters(std::string_view text) noexcept {
  return std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

}  // namespace quern
