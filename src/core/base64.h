// Base64 with the alphabet of RFC 4648, section 4.
#pragma once

#include <string>
#include <string_view>

namespace quern {

std::string base64_encode(std::string_view bytes);

// Sets `out` to the decoded bytes. False for text that is not canonical: empty, not a multiple of
// four characters, padded where it need not be, or with bits past the end.
bool base64_decode(std::string_view text, std::string& out);

}  // namespace quern
