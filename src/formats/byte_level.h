// Byte-level BPE's way to write bytes as printable characters, and back.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace quern {

// Nothing for a text with characters that stand for no byte.
std::optional<std::string> byte_level_to_bytes(std::string_view text);
std::string bytes_to_byte_level(std::string_view bytes);

}  // namespace quern
