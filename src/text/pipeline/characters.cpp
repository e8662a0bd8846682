#include "text/pipeline/characters.h"

#include <utf8proc.h>

namespace quern::characters {
namespace {

utf8proc_category_t category(char32_t point) noexcept {
  return utf8proc_category(static_cast<utf8proc_int32_t>(point));
}

bool within(char32_t point, char32_t first, char32_t last) noexcept {
  return point >= first && point <= last;
}

}  // namespace

bool is_punctuation(char32_t point) noexcept {
  if (point < 0x80) {
    return within(point, 0x21, 0x2F) || within(point, 0x3A, 0x40) || within(point, 0x5B, 0x60) ||
           within(point, 0x7B, 0x7E);
  }
  const utf8proc_category_t kind = category(point);
  return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO;
}

bool is_mark(char32_t point) noexcept {
  const utf8proc_category_t kind = category(point);
  return kind == UTF8PROC_CATEGORY_MN || kind == UTF8PROC_CATEGORY_MC ||
         kind == UTF8PROC_CATEGORY_ME;
}

bool is_nonspacing_mark(char32_t point) noexcept { return category(point) == UTF8PROC_CATEGORY_MN; }

bool is_control(char32_t point) noexcept {
  const utf8proc_category_t kind = category(point);
  return kind == UTF8PROC_CATEGORY_CC || kind == UTF8PROC_CATEGORY_CF ||
         kind == UTF8PROC_CATEGORY_CO;
}

bool is_word(char32_t point) noexcept {
  if (unicode::class_of(point) == unicode::Class::Letter || is_mark(point)) return true;
  const utf8proc_category_t kind = category(point);
  // Letters in circles and squares are alphabetic symbols; the joiners are words' parts.
  return kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL ||
         kind == UTF8PROC_CATEGORY_PC || within(point, 0x24B6, 0x24E9) ||
         within(point, 0x1F130, 0x1F149) || within(point, 0x1F150, 0x1F169) ||
         within(point, 0x1F170, 0x1F189) || point == 0x200C || point == 0x200D;
}

bool is_chinese(char32_t point) noexcept {
  return within(point, 0x4E00, 0x9FFF) || within(point, 0x3400, 0x4DBF) ||
         within(point, 0x20000, 0x2A6DF) || within(point, 0x2A700, 0x2B73F) ||
         within(point, 0x2B740, 0x2B81F) || within(point, 0x2B920, 0x2CEAF) ||
         within(point, 0xF900, 0xFAFF) || within(point, 0x2F800, 0x2FA1F);
}

void append_lower(std::string& out, char32_t point) {
  if (point < 0x80) {
    out += static_cast<char>(within(point, 'A', 'Z') ? point + 0x20 : point);
    return;
  }
  if (point == 0x130) {  // the one character whose lower case is two
    out += "i\xCC\x87";
    return;
  }
  utf8::append(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(point))));
}

char32_t before(std::string_view text, size_t end, size_t& begin) noexcept {
  begin = end - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return utf8::decode(text.substr(begin)).value;
}

}  // namespace quern::characters
