#include "core/utf8.h"

#include <cstring>

namespace quern::utf8 {
namespace {

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
  size_t i = skip_ascii(text, 0);
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
