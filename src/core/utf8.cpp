#include "core/utf8.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace quern::utf8 {
namespace {

#if defined(__x86_64__)

// What can be wrong with a byte and the one before it, a bit each, by three of their four halves:
// it is wrong where all three tables say so (Keiser and Lemire, "Validating UTF-8 in less than one
// instruction per byte", 2021). kTwoContinuations is no error behind the lead of a longer
// character, which is checked apart.
enum : uint8_t {
  kTooShort = 1,    // a lead without a continuation
  kTooLong = 2,     // a continuation after ASCII
  kOverlong3 = 4,   // E0, then below A0
  kSurrogate = 8,   // ED, then above 9F
  kOverlong2 = 16,  // C0 and C1
  kTooLarge = 32,   // F4, then above 8F, or a larger lead
  kOverlong4 = 64,  // F0, then below 90; leads above F4, then below 90
  kTwoContinuations = 128,
};

struct Halves {
  std::array<uint8_t, 16> lead_high, lead_low, next_high;
};

constexpr Halves make_halves() {
  Halves out{};
  for (size_t half = 0; half < 16; ++half) {
    uint8_t& lead = out.lead_high[half];
    if (half < 8) lead = kTooLong;
    if (half >= 8 && half < 12) lead = kTwoContinuations;
    if (half == 12) lead = kTooShort | kOverlong2;
    if (half == 13) lead = kTooShort;
    if (half == 14) lead = kTooShort | kOverlong3 | kSurrogate;
    if (half == 15) lead = kTooShort | kTooLarge | kOverlong4;

    uint8_t low = kTooShort | kTooLong | kTwoContinuations;  // whatever the lower half is
    if (half < 2) low |= kOverlong2;
    if (half == 0) low |= kOverlong3 | kOverlong4;
    if (half == 13) low |= kSurrogate;
    if (half == 4) low |= kTooLarge;
    if (half > 4) low |= kTooLarge | kOverlong4;
    out.lead_low[half] = low;

    uint8_t& next = out.next_high[half];
    if (half < 8 || half >= 12) {
      next = kTooShort;
    } else {
      next = kTooLong | kTwoContinuations | kOverlong2;
      if (half == 8) next |= kOverlong3 | kOverlong4;
      if (half == 9) next |= kOverlong3 | kTooLarge;
      if (half >= 10) next |= kSurrogate | kTooLarge;
    }
  }
  return out;
}

// Bytes from the front that are valid for sure: whole blocks, and whole characters.
[[gnu::target("avx2")]] size_t valid_prefix_avx2(std::string_view text) noexcept {
  static constexpr Halves kHalves = make_halves();
  const auto table = [](const std::array<uint8_t, 16>& half) __attribute__((target("avx2"))) {
    return _mm256_broadcastsi128_si256(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(half.data())));
  };
  const __m256i lead_high = table(kHalves.lead_high), lead_low = table(kHalves.lead_low),
                next_high = table(kHalves.next_high);
  const __m256i low_half = _mm256_set1_epi8(0x0F);
  __m256i before = _mm256_setzero_si256();
  size_t i = 0;
  for (; i + 32 <= text.size(); i += 32) {
    const __m256i c = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(text.data() + i));
    const __m256i edge = _mm256_permute2x128_si256(before, c, 0x21);
    before = c;
    if (_mm256_movemask_epi8(_mm256_or_si256(c, edge)) == 0) continue;
    const __m256i one = _mm256_alignr_epi8(c, edge, 15);  // the byte before each
    const __m256i two = _mm256_alignr_epi8(c, edge, 14);
    const __m256i three = _mm256_alignr_epi8(c, edge, 13);
    const auto upper = [&](__m256i bytes) __attribute__((target("avx2"))) {
      return _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low_half);
    };
    const __m256i wrong = _mm256_and_si256(
        _mm256_and_si256(_mm256_shuffle_epi8(lead_high, upper(one)),
                         _mm256_shuffle_epi8(lead_low, _mm256_and_si256(one, low_half))),
        _mm256_shuffle_epi8(next_high, upper(c)));
    // Third and fourth bytes have to be the second of two continuations, and nothing else may.
    const __m256i third = _mm256_subs_epu8(two, _mm256_set1_epi8(0xE0 - 0x80));
    const __m256i fourth = _mm256_subs_epu8(three, _mm256_set1_epi8(0xF0 - 0x80));
    const __m256i wanted =
        _mm256_and_si256(_mm256_or_si256(third, fourth), _mm256_set1_epi8(static_cast<char>(0x80)));
    if (!_mm256_testz_si256(_mm256_xor_si256(wrong, wanted), _mm256_set1_epi8(-1))) break;
  }
  // The character that the last block ends in may be unfinished.
  for (size_t back = 0; back < 4 && i > 0; ++back) {
    const auto byte = static_cast<unsigned char>(text[i - 1]);
    if (byte < 0x80) break;
    --i;
    if (byte >= 0xC0) break;
  }
  return i;
}

size_t valid_prefix(std::string_view text) noexcept {
  static const bool fast = cpu::may_use(cpu::Isa::Avx2);
  return fast ? valid_prefix_avx2(text) : 0;
}

#else

size_t valid_prefix(std::string_view) noexcept { return 0; }

#endif

// The first byte from `i` on that is not ASCII, or a little before it.
inline size_t skip_ascii(std::string_view text, size_t i) noexcept {
  constexpr size_t kStep = 32;
  for (; i + kStep <= text.size(); i += kStep) {
    uint64_t words[kStep / 8];
    std::memcpy(words, text.data() + i, kStep);
    if (((words[0] | words[1] | words[2] | words[3]) & 0x8080808080808080u) != 0) break;
  }
  return i;
}

}  // namespace

Point decode(std::string_view text) noexcept {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1, true};
  size_t length = 0;
  unsigned char low = 0x80, high = 0xBF;  // bounds of the second byte
  char32_t value = 0;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
    value = lead & 0x1Fu;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    value = lead & 0x0Fu;
    if (lead == 0xE0) low = 0xA0;   // overlong
    if (lead == 0xED) high = 0x9F;  // surrogates
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    value = lead & 0x07u;
    if (lead == 0xF0) low = 0x90;   // overlong
    if (lead == 0xF4) high = 0x8F;  // past U+10FFFF
  } else {
    return {0xFFFD, 1, false};
  }
  for (size_t i = 1; i < length; ++i) {
    if (i >= text.size() || byte(i) < low || byte(i) > high) return {0xFFFD, i, false};
    value = (value << 6) | (byte(i) & 0x3Fu);
    low = 0x80;
    high = 0xBF;
  }
  return {value, length, true};
}

void append(std::string& out, char32_t point) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (point < 0x80) {
    put(point);
  } else if (point < 0x800) {
    put(0xC0 | (point >> 6));
    put(0x80 | (point & 0x3F));
  } else if (point < 0x10000) {
    put(0xE0 | (point >> 12));
    put(0x80 | ((point >> 6) & 0x3F));
    put(0x80 | (point & 0x3F));
  } else {
    put(0xF0 | (point >> 18));
    put(0x80 | ((point >> 12) & 0x3F));
    put(0x80 | ((point >> 6) & 0x3F));
    put(0x80 | (point & 0x3F));
  }
}

size_t first_invalid(std::string_view text) noexcept {
  const auto continues = [&](size_t at) {
    return (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
  };
  size_t i = valid_prefix(text);
  if (i == 0) i = skip_ascii(text, 0);
  while (i < text.size()) {
    const auto lead = static_cast<unsigned char>(text[i]);
    if (lead < 0x80) {
      ++i;
      if ((i & 31) == 0) i = skip_ascii(text, i);
      continue;
    }
    // Most of what is not ASCII: leads whose second byte has no bounds of its own.
    const bool three = lead > 0xE0 && lead < 0xED && i + 2 < text.size();
    if (three && continues(i + 1) && continues(i + 2)) {
      i += 3;
      continue;
    }
    const Point point = decode(text.substr(i));
    if (!point.valid) return i;
    i += point.length;
  }
  return std::string_view::npos;
}

bool is_valid(std::string_view text) noexcept {
  return first_invalid(text) == std::string_view::npos;
}

}  // namespace quern::utf8
