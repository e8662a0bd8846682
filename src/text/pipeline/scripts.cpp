#include "text/pipeline/scripts.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/utf8.h"
#include "text/pipeline/characters.h"

namespace quern {
namespace {

// PCRE2's names of scripts. Which of them a character has stands in no function of its interface,
// so one expression that has a group for each runs over all characters, once.
constexpr std::string_view kScripts =
    "Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak "
    "Bengali Bhaiksuki Bopomofo Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian "
    "Caucasian_Albanian Chakma Cham Cherokee Chorasmian Common Coptic Cuneiform Cypriot "
    "Cypro_Minoan Cyrillic Deseret Devanagari Dives_Akuru Dogra Duployan Egyptian_Hieroglyphs "
    "Elbasan Elymaic Ethiopic Georgian Glagolitic Gothic Grantha Greek Gujarati Gunjala_Gondi "
    "Gurmukhi Han Hangul Hanifi_Rohingya Hanunoo Hatran Hebrew Hiragana Imperial_Aramaic Inherited "
    "Inscriptional_Pahlavi Inscriptional_Parthian Javanese Kaithi Kannada Katakana Kayah_Li "
    "Kharoshthi Khitan_Small_Script Khmer Khojki Khudawadi Lao Latin Lepcha Limbu Linear_A "
    "Linear_B Lisu Lycian Lydian Mahajani Makasar Malayalam Mandaic Manichaean Marchen "
    "Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs "
    "Miao Modi Mongolian Mro Multani Myanmar Nabataean Nandinagari Newa New_Tai_Lue Nko Nushu "
    "Nyiakeng_Puachue_Hmong Ogham Old_Hungarian Old_Italic Old_North_Arabian Old_Permic "
    "Old_Persian Old_Sogdian Old_South_Arabian Old_Turkic Old_Uyghur Ol_Chiki Oriya Osage Osmanya "
    "Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi Rejang Runic Samaritan "
    "Saurashtra Sharada Shavian Siddham SignWriting Sinhala Sogdian Sora_Sompeng Soyombo Sundanese "
    "Syloti_Nagri Syriac Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri Tamil Tangsa Tangut "
    "Telugu Thaana Thai Tibetan Tifinagh Tirhuta Toto Ugaritic Vai Vithkuqi Wancho Warang_Citi "
    "Yezidi Yi Zanabazar_Square";

constexpr uint8_t kAny = 0;

struct Table {
  std::vector<uint8_t> of_point = std::vector<uint8_t>(0x110000, kAny);
  uint8_t han = kAny;

  Table() {
    std::string pattern;
    uint8_t number = 0, hiragana = 0, katakana = 0;
    for (size_t at = 0; at < kScripts.size();) {
      const size_t end = std::min(kScripts.find(' ', at), kScripts.size());
      const std::string_view name = kScripts.substr(at, end - at);
      ++number;
      if (name == "Han") han = number;
      if (name == "Hiragana") hiragana = number;
      if (name == "Katakana") katakana = number;
      pattern += (pattern.empty() ? "(\\p{sc:" : "|(\\p{sc:") + std::string(name) + "}+)";
      at = end + 1;
    }
    std::string all;
    std::vector<char32_t> points;  // by bytes of `all`, of the first byte of each
    for (char32_t point = 0; point < 0x110000; ++point) {
      if (point >= 0xD800 && point < 0xE000) continue;
      utf8::append(all, point);
    }
    int problem = 0;
    size_t offset = 0;
    const std::unique_ptr<pcre2_code, void (*)(pcre2_code*)> code(
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF,
                      &problem, &offset, nullptr),
        pcre2_code_free);
    if (code == nullptr) return;
    pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
    const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> data(
        pcre2_match_data_create_from_pattern(code.get(), nullptr), pcre2_match_data_free);
    size_t at = 0;
    while (true) {
      const int groups = pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(all.data()),
                                     all.size(), at, PCRE2_NO_UTF_CHECK, data.get(), nullptr);
      if (groups <= 1) break;
      const size_t* const found = pcre2_get_ovector_pointer(data.get());
      const auto group = static_cast<uint8_t>(groups - 1);  // the only one that took part
      const uint8_t script = group == hiragana || group == katakana ? han : group;
      characters::each(std::string_view(all).substr(found[0], found[1] - found[0]),
                       [&](char32_t point, size_t, size_t) { of_point[point] = script; });
      at = found[1];
    }
    of_point[0x30FC] = han;  // the mark of a long vowel
    of_point[' '] = kAny;
  }
};

}  // namespace

void split_scripts(std::string_view text, const std::function<void(size_t, size_t)>& take) {
  static const Table table;
  int last = -1;
  size_t start = 0;
  bool open = false;
  characters::each(text, [&](char32_t point, size_t begin, size_t) {
    const int script = table.of_point[point];
    if (script == kAny) return;
    if (last != script) {
      if (open) take(start, begin);
      start = begin;
      open = true;
    }
    last = script;
  });
  if (open) take(start, text.size());
}

}  // namespace quern
