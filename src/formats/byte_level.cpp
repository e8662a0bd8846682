#include "formats/byte_level.h"

#include <array>
#include <unordered_map>

#include "core/utf8.h"

namespace quern {
namespace {

// Byte-level BPE writes bytes as printable characters: the printable ones of Latin-1 stand for
// themselves, the others are numbered from U+0100 on.
struct ByteAlphabet {
  std::array<char32_t, 256> of_byte{};
  std::unordered_map<char32_t, char> to_byte;

  ByteAlphabet() {
    char32_t next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const bool printable_byte =
          (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      of_byte[byte] = printable_byte ? byte : next++;
      to_byte[of_byte[byte]] = static_cast<char>(byte);
    }
  }
};

const ByteAlphabet& alphabet() {
  static const ByteAlphabet instance;
  return instance;
}

}  // namespace

std::optional<std::string> byte_level_to_bytes(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const utf8::Point point = utf8::decode(text);
    const auto it = alphabet().to_byte.find(point.value);
    if (it == alphabet().to_byte.end()) return std::nullopt;
    out += it->second;
    text.remove_prefix(point.length);
  }
  return out;
}

std::string bytes_to_byte_level(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) {
    utf8::append(out, alphabet().of_byte[static_cast<unsigned char>(byte)]);
  }
  return out;
}

}  // namespace quern
