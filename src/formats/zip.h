// The table of contents of a zip file whose members are stored, not compressed: what PyTorch
// writes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace quern {

// Member names and their bytes, views of `file`. Throws BadInput naming `source` for anything that
// is out of bounds, compressed, encrypted, named twice, or named so as to leave the archive.
std::map<std::string, std::string_view> read_stored_zip(std::string_view file,
                                                        const std::string& source);

}  // namespace quern
