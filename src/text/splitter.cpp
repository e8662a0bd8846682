#include "text/splitter.h"

#include "core/utf8.h"
#include "text/unicode.h"

namespace quern {
namespace {

using unicode::Class;

struct Char {
  Class kind;
  size_t end;  // offset behind it
};

// The character at `i`. Valid UTF-8 needs no checks, only the length that the lead byte gives.
inline Char char_at(std::string_view text, size_t i) noexcept {
  const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
  const unsigned char lead = byte(i);
  if (lead < 0x80) return {unicode::class_of(lead), i + 1};
  if (lead < 0xE0) {
    return {unicode::class_of(static_cast<char32_t>((lead & 0x1Fu) << 6 | (byte(i + 1) & 0x3Fu))),
            i + 2};
  }
  if (lead < 0xF0) {
    return {unicode::class_of(static_cast<char32_t>(
                (lead & 0x0Fu) << 12 | (byte(i + 1) & 0x3Fu) << 6 | (byte(i + 2) & 0x3Fu))),
            i + 3};
  }
  return {
      unicode::class_of(static_cast<char32_t>((lead & 0x07u) << 18 | (byte(i + 1) & 0x3Fu) << 12 |
                                              (byte(i + 2) & 0x3Fu) << 6 | (byte(i + 3) & 0x3Fu))),
      i + 4};
}

// End of the run of characters of one class that begins at `i`.
inline size_t run_end(std::string_view text, size_t i, Class kind) noexcept {
  while (i < text.size()) {
    const Char next = char_at(text, i);
    if (next.kind != kind) break;
    i = next.end;
  }
  return i;
}

// 's 't 're 've 'm 'll 'd in any case; U+017F, the long s, folds to s. 0 where there is none.
inline size_t contraction_end(std::string_view text, size_t begin) noexcept {
  const auto lower = [&](size_t i) {
    return i < text.size() ? static_cast<char>(text[i] | 0x20) : '\0';
  };
  switch (lower(begin + 1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return begin + 2;
    case 'r':
    case 'v':
      return lower(begin + 2) == 'e' ? begin + 3 : 0;
    case 'l':
      return lower(begin + 2) == 'l' ? begin + 3 : 0;
    default:
      return text.substr(begin + 1).starts_with("\xC5\xBF") ? begin + 3 : 0;
  }
}

// A run of white space: up to and with its last line break; else without its last character where
// something follows, which that character then leads; a single one is taken as it is.
inline size_t space_end(std::string_view text, size_t begin) noexcept {
  size_t end = begin, last = begin, after_break = 0;
  while (end < text.size()) {
    const Char next = char_at(text, end);
    if (next.kind != Class::Space && next.kind != Class::LineBreak) break;
    last = end;
    end = next.end;
    if (next.kind == Class::LineBreak) after_break = end;
  }
  if (after_break != 0) return after_break;
  return end == text.size() || last == begin ? end : last;
}

// Qwen's and LLaMA-3's patterns: `numbers` in a row are one piece.
template <int numbers>
size_t end_after_any_lead(std::string_view text, size_t begin) noexcept {
  const Char first = char_at(text, begin);
  switch (first.kind) {
    case Class::Letter:
      return run_end(text, first.end, Class::Letter);
    case Class::Number: {
      size_t end = first.end;
      for (int more = 1; more < numbers && end < text.size(); ++more) {
        const Char next = char_at(text, end);
        if (next.kind != Class::Number) break;
        end = next.end;
      }
      return end;
    }
    case Class::LineBreak:
      return space_end(text, begin);
    case Class::Space:
    case Class::Other:
      break;
  }
  if (text[begin] == '\'') {
    if (const size_t end = contraction_end(text, begin); end != 0) return end;
  }
  if (first.end < text.size()) {
    const Class next = char_at(text, first.end).kind;
    if (next == Class::Letter) return run_end(text, first.end, Class::Letter);
    const bool led_by_space = text[begin] == ' ' && next == Class::Other;
    if (first.kind == Class::Space && !led_by_space) return space_end(text, begin);
  } else if (first.kind == Class::Space) {
    return first.end;
  }
  return run_end(text, run_end(text, first.end, Class::Other), Class::LineBreak);
}

bool is_white(Class kind) noexcept { return kind == Class::Space || kind == Class::LineBreak; }

// GPT-2's pattern; `digits`: every number stands alone, as if the text ended before and behind it.
template <bool digits>
size_t end_after_blank(std::string_view text, size_t begin) noexcept {
  const Char first = char_at(text, begin);
  if (digits && first.kind == Class::Number) return first.end;
  if (!is_white(first.kind)) {
    if (text[begin] == '\'') {
      const std::string_view rest = text.substr(begin + 1, 2);
      for (const std::string_view end : {"s", "t", "re", "ve", "m", "ll", "d"}) {
        if (rest.starts_with(end)) return begin + 1 + end.size();
      }
    }
    return run_end(text, first.end, first.kind);
  }
  if (text[begin] == ' ' && first.end < text.size()) {
    const Class next = char_at(text, first.end).kind;
    if (!is_white(next) && !(digits && next == Class::Number)) {
      return run_end(text, first.end, next);
    }
  }
  // All of the white space but its last character, which belongs to what follows or stands alone.
  size_t end = begin, last = begin;
  while (end < text.size()) {
    const Char next = char_at(text, end);
    if (!is_white(next.kind)) {
      if (digits && next.kind == Class::Number) return end;
      return last == begin ? end : last;
    }
    last = end;
    end = next.end;
  }
  return end;
}

}  // namespace

const std::string_view kQwenPattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const std::string_view kLlama3Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const std::string_view kGpt2Pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

size_t piece_end(std::string_view text, size_t begin) noexcept {
  return end_after_any_lead<1>(text, begin);
}

PieceEnd piece_end_of(SplitRule rule) noexcept {
  switch (rule) {
    case SplitRule::Qwen2:
      break;
    case SplitRule::Llama3:
      return end_after_any_lead<3>;
    case SplitRule::Gpt2:
      return end_after_blank<false>;
    case SplitRule::DigitsGpt2:
      return end_after_blank<true>;
  }
  return end_after_any_lead<1>;
}

}  // namespace quern
