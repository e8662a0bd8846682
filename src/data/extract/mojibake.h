// Text that was decoded wrongly on its way, made right again: UTF-8 read as windows-1252 or another
// single-byte charset, once or several times over, GBK or Shift_JIS read as such; and what copying
// leaves behind: entities, ligatures, full-width letters, control characters, decomposed accents.
//
// A repair is made only where what comes out is more likely text than what went in: clean text comes
// back as it is, byte for byte.
#pragma once

#include <string>
#include <string_view>

namespace quern {

// `text` is valid UTF-8. Line breaks become LF, letters NFC.
std::string repair_text(std::string_view text);

}  // namespace quern
