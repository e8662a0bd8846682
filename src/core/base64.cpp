#include "core/base64.h"

#include <algorithm>
#include <array>
#include <cstdint>

namespace quern {
namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// What each of the four characters of a group adds to its 24 bits; kNoDigit for others.
constexpr uint32_t kNoDigit = uint32_t{1} << 31;
using Digits = std::array<std::array<uint32_t, 256>, 4>;
constexpr Digits make_digits() {
  Digits digits{};
  for (size_t place = 0; place < 4; ++place) {
    for (auto& digit : digits[place]) digit = kNoDigit;
    for (size_t i = 0; i < kAlphabet.size(); ++i) {
      digits[place][static_cast<unsigned char>(kAlphabet[i])] =
          static_cast<uint32_t>(i << (18 - 6 * place));
    }
  }
  return digits;
}

}  // namespace

std::string base64_encode(std::string_view bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    uint32_t word = 0;
    for (size_t k = 0; k < 3; ++k) {
      word = word << 8 | (k < count ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    }
    for (size_t k = 0; k < 4; ++k) {
      out += k <= count ? kAlphabet[word >> (18 - 6 * k) & 0x3F] : '=';
    }
  }
  return out;
}

bool base64_decode(std::string_view text, std::string& out) {
  static constexpr Digits kDigits = make_digits();
  if (text.empty() || text.size() % 4 != 0) return false;
  size_t padding = 0;
  while (padding < 2 && text[text.size() - 1 - padding] == '=') ++padding;
  out.resize(text.size() / 4 * 3);
  char* to = out.data();
  const auto digit = [&](size_t place, size_t i) {
    return kDigits[place][static_cast<unsigned char>(text[i])];
  };
  const auto put = [&](uint32_t word) {
    to[0] = static_cast<char>(word >> 16);
    to[1] = static_cast<char>(word >> 8);
    to[2] = static_cast<char>(word);
    to += 3;
  };
  size_t i = 0;
  uint32_t all = 0;
  for (; i + 4 < text.size(); i += 4) {
    const uint32_t word = digit(0, i) | digit(1, i + 1) | digit(2, i + 2) | digit(3, i + 3);
    all |= word;
    put(word);
  }
  uint32_t last = digit(0, i) | digit(1, i + 1);
  if (padding < 2) last |= digit(2, i + 2);
  if (padding < 1) last |= digit(3, i + 3);
  if (((all | last) & kNoDigit) != 0) return false;
  if ((last & ((1u << (8 * padding)) - 1u)) != 0) return false;  // bits past the end
  put(last);
  out.erase(out.size() - padding);
  return true;
}

}  // namespace quern
