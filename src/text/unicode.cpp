#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "core/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "core/error.h"
#include "core/utf8.h"
#include "text/unicode_ranges.h"

namespace quern::unicode {
namespace {

constexpr char32_t kCodePoints = 0x110000;

// One byte a code point: a megabyte, of which what is neither filled nor read costs nothing, for
// Other is zero.
static_assert(Class::Other == Class{});
Class class_table_of_all[kCodePoints];

const Class* make_classes() noexcept {
  Class* const table = class_table_of_all;
  const auto fill = [&](const Range* ranges, size_t count, Class value) {
    for (size_t i = 0; i < count; ++i) {
      std::fill(table + ranges[i].first, table + ranges[i].last + 1, value);
    }
  };
  fill(kLetters, kLettersCount, Class::Letter);
  fill(kNumbers, kNumbersCount, Class::Number);
  fill(kWhiteSpace, kWhiteSpaceCount, Class::Space);
  table['\r'] = table['\n'] = Class::LineBreak;
  return table;
}

// True for code points that NFC may change or that may join what stands before them: combining
// class not 0, or quick check No or Maybe. Everything else begins a stretch of its own.
// A bit for each code point.
std::vector<uint64_t> make_unsafe() {
  std::vector<uint64_t> table(kCodePoints / 64, 0);
  const auto mark = [&](char32_t point) { table[point >> 6] |= uint64_t{1} << (point & 63); };
  const auto mark_seconds = [&](utf8proc_int32_t point) {
    // The second half of a canonical decomposition composes with a first: Maybe.
    utf8proc_int32_t parts[8];
    int last_class = 0;
    const auto count = utf8proc_decompose_char(point, parts, 8, UTF8PROC_DECOMPOSE, &last_class);
    if (count > 1) {
      for (utf8proc_ssize_t i = 1; i < count; ++i) mark(static_cast<char32_t>(parts[i]));
    }
  };
  for (char32_t point = 0xC0; point < 0x30000; ++point) {
    const auto signed_point = static_cast<utf8proc_int32_t>(point);
    const utf8proc_property_t* property = utf8proc_get_property(signed_point);
    if (property->combining_class != 0) mark(point);
    if (property->decomp_seqindex == UINT16_MAX || property->decomp_type != 0) continue;
    mark_seconds(signed_point);
    // Singletons and composition exclusions do not come back from their decomposition: No.
    std::string text;
    utf8::append(text, point);
    utf8proc_uint8_t* composed = nullptr;
    const auto length =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                     static_cast<utf8proc_ssize_t>(text.size()), &composed,
                     static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(composed, std::free);
    if (length < 0 ||
        text != std::string_view(reinterpret_cast<char*>(composed), static_cast<size_t>(length))) {
      mark(point);
    }
  }
  for (char32_t jamo = 0x1161; jamo <= 0x1175; ++jamo) mark(jamo);  // vowels
  for (char32_t jamo = 0x11A8; jamo <= 0x11C2; ++jamo) mark(jamo);  // finals
  return table;
}

// Blocks of which no character is unsafe: punctuation, signs of currency, and full-width forms.
// They spare most texts the making of the table.
bool is_common_and_safe(char32_t point) noexcept {
  return (point >= 0x2002 && point < 0x20D0) || (point >= 0x3001 && point < 0x302A) ||
         (point >= 0xFF00 && point < 0xFFF0);
}

bool is_unsafe(char32_t point) noexcept {
  if (is_common_and_safe(point)) return false;
  static const std::vector<uint64_t> table = make_unsafe();
  return (table[point >> 6] >> (point & 63) & 1) != 0;
}

// Safe at a glance: below U+0300, and the ideographs U+4000 to U+9FFF.
inline bool plainly_safe(unsigned char lead) noexcept {
  return lead < 0xCC || (lead >= 0xE4 && lead <= 0xE9);
}

// The first place from `i` on where an unsafe character begins, or the end.
size_t first_unsafe_scalar(std::string_view text, size_t i) noexcept {
  for (; i < text.size(); ++i) {
    if (plainly_safe(static_cast<unsigned char>(text[i]))) continue;
    if (is_unsafe(utf8::decode(text.substr(i)).value)) break;
  }
  return i;
}

#if defined(__x86_64__)

[[gnu::target("avx2")]] size_t first_unsafe_avx2(std::string_view text) noexcept {
  size_t i = 0;
  for (; i + 32 <= text.size(); i += 32) {
    const __m256i c = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(text.data() + i));
    // As signed numbers the bytes from 0x80 up are negative; the sign bit is what counts below.
    const __m256i high = _mm256_and_si256(c, _mm256_cmpgt_epi8(c, _mm256_set1_epi8('\xCB')));
    const __m256i ideograph = _mm256_sub_epi8(c, _mm256_set1_epi8('\xE4'));
    const __m256i safe =
        _mm256_cmpeq_epi8(ideograph, _mm256_min_epu8(ideograph, _mm256_set1_epi8(5)));
    auto rest = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_andnot_si256(safe, high)));
    for (; rest != 0; rest &= rest - 1) {
      const size_t at = i + static_cast<size_t>(__builtin_ctz(rest));
      if (is_unsafe(utf8::decode(text.substr(at)).value)) return at;
    }
  }
  return first_unsafe_scalar(text, i);
}

#endif

size_t first_unsafe(std::string_view text) noexcept {
#if defined(__x86_64__)
  static const bool fast = cpu::may_use(cpu::Isa::Avx2);
  if (fast) return first_unsafe_avx2(text);
#endif
  return first_unsafe_scalar(text, 0);
}

// Bytes from `i` on that are ASCII, in whole words.
inline size_t ascii_bytes(std::string_view text, size_t i) noexcept {
  const size_t begin = i;
  for (; i + 16 <= text.size(); i += 16) {
    uint64_t words[2];
    std::memcpy(words, text.data() + i, sizeof words);
    if (((words[0] | words[1]) & 0x8080808080808080u) != 0) break;
  }
  return i - begin;
}

void append_normalized(std::string& out, std::string_view stretch) {
  utf8proc_uint8_t* mapped = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(stretch.data()),
                   static_cast<utf8proc_ssize_t>(stretch.size()), &mapped,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (length < 0) throw Error(Kind::Failed, utf8proc_errmsg(length));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(mapped, std::free);
  out.append(reinterpret_cast<const char*>(mapped), static_cast<size_t>(length));
}

}  // namespace

const Class* class_table() noexcept {
  static const Class* const table = make_classes();
  return table;
}

Class class_of(char32_t point) noexcept {
  static const Class* const table = class_table();
  return table[point];
}

std::string_view to_nfc(std::string_view text, std::string& storage) {
  size_t i = first_unsafe(text);
  if (i == text.size()) return text;
  size_t starter = i;  // where the last safe character began
  while (starter > 0 && (static_cast<unsigned char>(text[--starter]) & 0xC0) == 0x80) continue;
  size_t kept = 0;  // text[0, kept) is in storage, or nothing is and kept is 0
  bool changed = false;
  while (i < text.size()) {
    const auto lead = static_cast<unsigned char>(text[i]);
    if (lead < 0x80) {
      const size_t ascii = std::max<size_t>(1, ascii_bytes(text, i));
      i += ascii;
      starter = i - 1;
      continue;
    }
    if (plainly_safe(lead)) {
      starter = i;
      i += lead < 0xE0 ? 2 : 3;
      continue;
    }
    const utf8::Point point = utf8::decode(text.substr(i));
    if (!is_unsafe(point.value)) {
      starter = i;
      i += point.length;
      continue;
    }
    // From the last safe character before to the next one after, or the end.
    size_t end = i + point.length;
    while (end < text.size()) {
      const utf8::Point next = utf8::decode(text.substr(end));
      if (!is_unsafe(next.value)) break;
      end += next.length;
    }
    if (!changed) storage.clear();
    changed = true;
    storage.append(text.substr(kept, starter - kept));
    append_normalized(storage, text.substr(starter, end - starter));
    kept = starter = i = end;
  }
  if (!changed) return text;
  storage.append(text.substr(kept));
  return storage;
}

std::string_view to_valid_utf8(std::string_view text, std::string& storage) {
  size_t bad = utf8::first_invalid(text);
  if (bad == text.npos) return text;
  storage.clear();
  while (bad != text.npos) {
    storage.append(text.substr(0, bad));
    utf8::append(storage, 0xFFFD);
    text.remove_prefix(bad + utf8::decode(text.substr(bad)).length);
    bad = utf8::first_invalid(text);
  }
  storage.append(text);
  return storage;
}

std::string from_utf16(std::u16string_view units) {
  std::string out;
  for (size_t i = 0; i < units.size(); ++i) {
    const char32_t unit = units[i];
    const bool high = unit >= 0xD800 && unit < 0xDC00;
    if (high && i + 1 < units.size() && units[i + 1] >= 0xDC00 && units[i + 1] < 0xE000) {
      utf8::append(out, 0x10000 + ((unit - 0xD800) << 10) + (units[i + 1] - 0xDC00u));
      ++i;
    } else {
      utf8::append(out, unit >= 0xD800 && unit < 0xE000 ? 0xFFFD : unit);
    }
  }
  return out;
}

}  // namespace quern::unicode
