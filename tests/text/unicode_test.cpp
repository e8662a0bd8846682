#include "text/unicode.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "core/utf8.h"

namespace quern {
namespace {

std::string by_definition(const std::string& text) {
  utf8proc_uint8_t* mapped = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(mapped, std::free);
  return {reinterpret_cast<char*>(mapped), static_cast<size_t>(length)};
}

// What to_nfc passes through unseen has to be what normalizing the whole text leaves alone: each
// character behind a letter and before an accent, alone, and behind an accent.
TEST(Unicode, EveryCodePointIsNormalizedAsByTheWholeText) {
  for (char32_t point = 1; point < 0x110000; ++point) {
    if (point >= 0xD800 && point < 0xE000) continue;
    std::string character;
    utf8::append(character, point);
    for (const std::string& text :
         {character, "a" + character + "\u0301b", "\u0323" + character + "\u0301"}) {
      std::string storage;
      ASSERT_EQ(unicode::to_nfc(text, storage), by_definition(text))
          << static_cast<uint32_t>(point);
    }
  }
}

}  // namespace
}  // namespace quern
