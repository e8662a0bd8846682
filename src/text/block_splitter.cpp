#include "text/block_splitter.h"

#include <array>
#include <bit>
#include <cstdlib>

#include "core/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace quern {
namespace {

using unicode::Class;

// Bit i tells of byte i. Of letters and numbers all their bytes; white space is ASCII.
struct Masks {
  uint64_t letter = 0, number = 0;
  uint64_t white = 0;       // line breaks included
  uint64_t line_break = 0;  // CR, LF
  uint64_t blank = 0;       // U+0020
  uint64_t apostrophe = 0;
  uint64_t beyond = 0;        // not ASCII
  uint64_t continuation = 0;  // second and later bytes of characters
  uint64_t unread = 0;        // first bytes of characters that are not in the masks yet
};

// Ends of the contractions that begin at `starts`, apostrophes at which a piece begins.
uint64_t contraction_ends(const char* text, uint64_t starts) noexcept {
  uint64_t ends = 0;
  for (; starts != 0; starts &= starts - 1) {
    const int at = std::countr_zero(starts);
    if (at + 2 >= 64) break;
    const char first = static_cast<char>(text[at + 1] | 0x20);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') {
      ends |= uint64_t{1} << (at + 2);
      continue;
    }
    if (at + 3 >= 64) break;
    const char second = static_cast<char>(text[at + 2] | 0x20);
    if ((second == 'e' && (first == 'r' || first == 'v')) || (second == 'l' && first == 'l')) {
      ends |= uint64_t{1} << (at + 3);
    }
  }
  return ends;
}

// The same for GPT-2's pattern, which knows small letters only. `led` gets the letters behind these
// apostrophes, which begin no piece; `known` loses the places that the block is too short to decide.
uint64_t small_contraction_ends(const char* text, uint64_t starts, uint64_t& led,
                                uint64_t& known) noexcept {
  uint64_t ends = 0;
  for (; starts != 0; starts &= starts - 1) {
    const int at = std::countr_zero(starts);
    if (at + 3 >= 64) {
      known &= (uint64_t{2} << at) - 1;
      break;
    }
    const char first = text[at + 1], second = text[at + 2];
    int length = 0;
    if (first == 's' || first == 't' || first == 'm' || first == 'd') length = 2;
    if ((second == 'e' && (first == 'r' || first == 'v')) || (second == 'l' && first == 'l')) {
      length = 3;
    }
    if (length == 0) continue;
    led |= uint64_t{1} << (at + 1);
    ends |= uint64_t{1} << (at + length);
  }
  return ends;
}

// The first character of each run of numbers, and every third one after it.
uint64_t every_third(uint64_t leads, uint64_t run_starts) noexcept {
  uint64_t starts = 0;
  int count = 0;
  for (; leads != 0; leads &= leads - 1) {
    const uint64_t bit = leads & (~leads + 1);
    if ((bit & run_starts) != 0) count = 0;
    if (count % 3 == 0) starts |= bit;
    ++count;
  }
  return starts;
}

// Enters the characters that are not ASCII, and returns the bits before the first one that is left
// to the definition: white space, the long s, which may end a contraction, and what the block does
// not hold the whole of.
uint64_t read_beyond(const char* text, const Class* classes, Masks& m) noexcept {
  const auto byte = [&](int i) { return static_cast<unsigned char>(text[i]) & 0x3Fu; };
  for (uint64_t rest = m.unread; rest != 0; rest &= rest - 1) {
    const int at = std::countr_zero(rest);
    const uint64_t before = (uint64_t{1} << at) - 1;
    const auto lead = static_cast<unsigned char>(text[at]);
    char32_t point = 0;
    uint64_t bytes = 0;
    if (lead < 0xE0) {
      if (at + 2 > 64) return before;
      point = (lead & 0x1Fu) << 6 | byte(at + 1);
      bytes = 3;
    } else if (lead < 0xF0) {
      if (at + 3 > 64) return before;
      point = (lead & 0x0Fu) << 12 | byte(at + 1) << 6 | byte(at + 2);
      bytes = 7;
    } else {
      if (at + 4 > 64 || lead > 0xF4) return before;
      point = (lead & 0x07u) << 18 | byte(at + 1) << 12 | byte(at + 2) << 6 | byte(at + 3);
      bytes = 15;
    }
    const Class kind = classes[point];
    if (kind == Class::Space || point == 0x17F) return before;
    m.letter |= (kind == Class::Letter ? bytes : 0) << at;
    m.number |= (kind == Class::Number ? bytes : 0) << at;
  }
  return ~uint64_t{0};
}

// The cuts, given the classes. `x << 1` reads "the byte before is x". Where in the pattern a piece
// may begin does not depend on what came before the block, so none of its state is carried.
template <SplitRule rule>
[[gnu::always_inline]] inline uint64_t cuts_of(const char* text, const Class* classes,
                                               Masks& m) noexcept {
  uint64_t known = ~uint64_t{0};
  if (m.beyond != 0) {
    if ((m.continuation & 1) != 0) return 0;
    if (m.unread != 0) known = read_beyond(text, classes, m);
    // A character whose first byte is in the block, and not all of the others.
    constexpr uint64_t kEnd = uint64_t{7} << 61;
    if ((m.beyond & kEnd) != 0) {
      const uint64_t leads = m.beyond & ~m.continuation;
      const int last = 63 - std::countl_zero(leads);
      const auto lead = static_cast<unsigned char>(text[last]);
      if (last + (lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4) > 64) {
        known &= (uint64_t{1} << last) - 1;
      }
    }
  }
  const uint64_t black = ~m.white & known;
  if (black == 0) return 0;
  const uint64_t other = black & ~(m.letter | m.number);
  const int last_black = 63 - std::countl_zero(black);
  // What a run of white space that reaches the end of the block means is not known yet: only where
  // it begins.
  uint64_t certain = last_black == 63 ? ~uint64_t{0} : (uint64_t{2} << (last_black + 1)) - 1;
  if constexpr (rule == SplitRule::Gpt2 || rule == SplitRule::DigitsGpt2) {
    constexpr bool kDigits = rule == SplitRule::DigitsGpt2;
    const uint64_t other_starts = other & ~((other | m.blank) << 1);
    uint64_t starts = other_starts | (m.letter & ~((m.letter | m.blank) << 1));
    if constexpr (kDigits) {
      starts |= (m.number & ~m.continuation) | ((black & ~m.number) & (m.number << 1));
    } else {
      starts |= m.number & ~((m.number | m.blank) << 1);
    }
    // White space: the first of a run, and the last, which leads what follows.
    const uint64_t followed = kDigits ? black & ~m.number : black;
    starts |= m.white & (~(m.white << 1) | (followed >> 1));
    if (const uint64_t leading = m.apostrophe & other_starts & (m.letter >> 1); leading != 0) {
      uint64_t led = 0;
      const uint64_t ends = small_contraction_ends(text, leading, led, certain);
      starts = (starts & ~led) | ends;
    }
    return starts & certain & known & ~uint64_t{1};
  }
  const uint64_t space = m.white & ~m.line_break;

  // Other characters begin a piece unless one or a blank leads them. One that does leads letters,
  // as white space does.
  const uint64_t other_starts = other & ~((other | m.blank) << 1);
  uint64_t leading_others = other_starts;
  if (m.beyond != 0) {
    leading_others |= (leading_others << 1) & m.continuation;
    leading_others |= (leading_others << 1) & m.continuation;
    leading_others |= (leading_others << 1) & m.continuation;
  }
  uint64_t starts = other_starts;
  if (const uint64_t numbers = m.number & ~m.continuation; rule == SplitRule::Qwen2) {
    starts |= numbers;
  } else if (const uint64_t run_starts = m.number & ~(m.number << 1); numbers == run_starts) {
    starts |= numbers;
  } else {
    starts |= every_third(numbers, run_starts);
  }
  starts |= m.letter & ~((m.letter | space | leading_others) << 1);
  // Line breaks behind other characters or white space belong to their piece.
  starts |= m.line_break & ~((m.white | other) << 1);
  // White space: the first of a run, and the last, which leads what follows. Behind a line break
  // it begins a piece where no other line break follows in the run.
  starts |= space & (~(m.white << 1) | (black >> 1) | (m.line_break << 1));
  if (const uint64_t leading = m.apostrophe & other_starts & (m.letter >> 1); leading != 0) {
    starts |= contraction_ends(text, leading);
  }

  // Blanks between line breaks, which are rare, are left to the definition.
  const uint64_t indented = space & (m.line_break << 1);
  if ((((indented + space) & ~space) & m.line_break) != 0) {
    certain &= (indented & (~indented + 1)) - 1;
  }
  return starts & certain & known & ~uint64_t{1};
}

enum : uint8_t { kLetter = 1, kNumber = 2, kWhite = 4, kLineBreak = 8, kBlank = 16 };

constexpr std::array<uint8_t, 256> make_classes() {
  std::array<uint8_t, 256> classes{};
  for (int c = 'a'; c <= 'z'; ++c) {
    classes[static_cast<size_t>(c)] = kLetter;
    classes[static_cast<size_t>(c - 'a' + 'A')] = kLetter;
  }
  for (size_t c = '0'; c <= '9'; ++c) classes[c] = kNumber;
  for (size_t c = '\t'; c <= '\r'; ++c) classes[c] = kWhite;
  classes['\r'] = classes['\n'] = kWhite | kLineBreak;
  classes[' '] = kWhite | kBlank;
  return classes;
}

template <SplitRule rule>
uint64_t cuts_scalar(const char* text, const Class* classes) noexcept {
  static constexpr std::array<uint8_t, 256> kClasses = make_classes();
  Masks m;
  for (size_t i = 0; i < kSplitBlock; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const uint64_t kind = kClasses[byte];
    m.letter |= (kind & 1) << i;
    m.number |= (kind >> 1 & 1) << i;
    m.white |= (kind >> 2 & 1) << i;
    m.line_break |= (kind >> 3 & 1) << i;
    m.blank |= (kind >> 4 & 1) << i;
    m.apostrophe |= uint64_t{byte == '\''} << i;
    m.beyond |= uint64_t{byte >= 0x80} << i;
    m.continuation |= uint64_t{(byte & 0xC0) == 0x80} << i;
  }
  m.unread = m.beyond & ~m.continuation;
  return cuts_of<rule>(text, classes, m);
}

#if defined(__x86_64__)

// The ideographs U+5000 to U+8FFF, letters all, need no look at a table: `leads` are their first
// bytes.
[[gnu::always_inline]] inline void enter_beyond(Masks& m, uint64_t leads) noexcept {
  m.unread = m.beyond & ~m.continuation & ~leads;
  m.letter |= leads | leads << 1 | leads << 2;
}

template <SplitRule rule>
[[gnu::target("avx2,bmi,bmi2,lzcnt")]] uint64_t cuts_avx2(const char* text,
                                                          const Class* classes) noexcept {
  const __m256i half[2] = {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(text)),
                           _mm256_loadu_si256(reinterpret_cast<const __m256i*>(text + 32))};
  uint64_t bits[7] = {};
  for (int i = 0; i < 2; ++i) {
    const __m256i c = half[i];
    const __m256i letter =
        _mm256_sub_epi8(_mm256_or_si256(c, _mm256_set1_epi8(0x20)), _mm256_set1_epi8('a'));
    const __m256i digit = _mm256_sub_epi8(c, _mm256_set1_epi8('0'));
    const __m256i control = _mm256_sub_epi8(c, _mm256_set1_epi8('\t'));
    const __m256i blank = _mm256_cmpeq_epi8(c, _mm256_set1_epi8(' '));
    const __m256i below[3] = {
        _mm256_cmpeq_epi8(letter, _mm256_min_epu8(letter, _mm256_set1_epi8(25))),
        _mm256_cmpeq_epi8(digit, _mm256_min_epu8(digit, _mm256_set1_epi8(9))),
        _mm256_or_si256(blank,
                        _mm256_cmpeq_epi8(control, _mm256_min_epu8(control, _mm256_set1_epi8(4))))};
    const __m256i line_break = _mm256_or_si256(_mm256_cmpeq_epi8(c, _mm256_set1_epi8('\n')),
                                               _mm256_cmpeq_epi8(c, _mm256_set1_epi8('\r')));
    const __m256i all[7] = {below[0],   below[1], below[2],
                            line_break, blank,    _mm256_cmpeq_epi8(c, _mm256_set1_epi8('\'')),
                            c};
    for (int k = 0; k < 7; ++k) {
      bits[k] |= uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(all[k]))} << (32 * i);
    }
  }
  Masks m = {.letter = bits[0],
             .number = bits[1],
             .white = bits[2],
             .line_break = bits[3],
             .blank = bits[4],
             .apostrophe = bits[5],
             .beyond = bits[6]};
  if (m.beyond != 0) {
    uint64_t leads = 0;
    for (int i = 0; i < 2; ++i) {
      const __m256i c = half[i];
      const __m256i ideograph = _mm256_sub_epi8(c, _mm256_set1_epi8('\xE5'));
      const __m256i is_lead =
          _mm256_cmpeq_epi8(ideograph, _mm256_min_epu8(ideograph, _mm256_set1_epi8(3)));
      const __m256i continues = _mm256_cmpgt_epi8(_mm256_set1_epi8('\xC0'), c);
      leads |= uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(is_lead))} << (32 * i);
      m.continuation |= uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(continues))}
                        << (32 * i);
    }
    enter_beyond(m, leads);
  }
  return cuts_of<rule>(text, classes, m);
}

template <SplitRule rule>
[[gnu::target("avx512f,avx512bw,bmi,bmi2,lzcnt")]] uint64_t cuts_avx512(
    const char* text, const Class* classes) noexcept {
  const __m512i c = _mm512_loadu_si512(text);
  const auto among = [&](char first, char span) __attribute__((target("avx512f,avx512bw"))) {
    return _mm512_cmple_epu8_mask(_mm512_sub_epi8(c, _mm512_set1_epi8(first)),
                                  _mm512_set1_epi8(span));
  };
  const __m512i folded = _mm512_or_si512(c, _mm512_set1_epi8(0x20));
  Masks m;
  m.letter =
      _mm512_cmple_epu8_mask(_mm512_sub_epi8(folded, _mm512_set1_epi8('a')), _mm512_set1_epi8(25));
  m.number = among('0', 9);
  m.blank = _mm512_cmpeq_epi8_mask(c, _mm512_set1_epi8(' '));
  m.white = m.blank | among('\t', 4);
  m.line_break = _mm512_cmpeq_epi8_mask(c, _mm512_set1_epi8('\n')) |
                 _mm512_cmpeq_epi8_mask(c, _mm512_set1_epi8('\r'));
  m.apostrophe = _mm512_cmpeq_epi8_mask(c, _mm512_set1_epi8('\''));
  m.beyond = _mm512_movepi8_mask(c);
  m.continuation = among('\x80', 0x3F);
  enter_beyond(m, among('\xE5', 3));
  return cuts_of<rule>(text, classes, m);
}

#endif

template <SplitRule rule>
std::vector<BlockCutsVariant> variants() {
  std::vector<BlockCutsVariant> out = {{"scalar", cpu::Isa::Scalar, cuts_scalar<rule>}};
#if defined(__x86_64__)
  const bool bits = __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("lzcnt");
  if (bits && __builtin_cpu_supports("avx2")) {
    out.push_back({"avx2", cpu::Isa::Avx2, cuts_avx2<rule>});
  }
  if (bits && __builtin_cpu_supports("avx512bw")) {
    out.push_back({"avx512", cpu::Isa::Avx512, cuts_avx512<rule>});
  }
#endif
  return out;
}

BlockCuts choose(SplitRule rule) {
  BlockCuts best = nullptr;
  for (const BlockCutsVariant& variant : block_cuts_variants(rule)) {
    if (best == nullptr || cpu::may_use(variant.isa)) best = variant.cuts;
  }
  return best;
}

}  // namespace

std::vector<BlockCutsVariant> block_cuts_variants(SplitRule rule) {
  switch (rule) {
    case SplitRule::Qwen2:
      break;
    case SplitRule::Llama3:
      return variants<SplitRule::Llama3>();
    case SplitRule::Gpt2:
      return variants<SplitRule::Gpt2>();
    case SplitRule::DigitsGpt2:
      return variants<SplitRule::DigitsGpt2>();
  }
  return variants<SplitRule::Qwen2>();
}

BlockCuts block_cuts(SplitRule rule) noexcept {
  static const BlockCuts chosen[] = {choose(SplitRule::Qwen2), choose(SplitRule::Llama3),
                                     choose(SplitRule::Gpt2), choose(SplitRule::DigitsGpt2)};
  return chosen[static_cast<size_t>(rule)];
}

}  // namespace quern
