// What the tokenizers need to know of Unicode: classes of code points, and NFC.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace quern::unicode {

// Classes as the splitting pattern has them (Unicode 16). CR and LF are white space of their own.
enum class Class : uint8_t { Other, Letter, Number, Space, LineBreak };

// For any value up to U+10FFFF.
Class class_of(char32_t point) noexcept;

// The class of each code point up to U+10FFFF.
const Class* class_table() noexcept;

// Puts valid UTF-8 in normalization form C (UAX #15). Most text is in it already and is passed
// through after a look at its bytes: `storage` is then left alone and `text` itself returned.
std::string_view to_nfc(std::string_view text, std::string& storage);

// Valid UTF-8: each maximal ill-formed part of `text` becomes one U+FFFD. Returns `text` itself
// where there is none.
std::string_view to_valid_utf8(std::string_view text, std::string& storage);

// UTF-16 code units, as JSON escapes and JavaScript give them: pairs of surrogates are joined, a
// lone one becomes U+FFFD.
std::string from_utf16(std::u16string_view units);

}  // namespace quern::unicode
