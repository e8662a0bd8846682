// A Bpe's tables in a file that is used as it lies there. The file belongs to one machine and one
// version of Quern: where it does not fit, it is made again.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "core/file.h"
#include "text/bpe.h"

namespace quern {

// What the vocabulary was made from.
struct SourceId {
  uint64_t size = 0;
  uint64_t hash[2] = {0, 0};
  bool operator==(const SourceId&) const = default;
};
SourceId source_id(std::string_view text) noexcept;

class BpeFile {
 public:
  // The bytes of a file for a Bpe made by from_ranks; empty where its tokens are too long for one.
  static std::string make(const Bpe& bpe, const SourceId& source);

  // The Bpe of such a file, whose tables lie in the mapping. Nothing where the file is of another
  // source, another version, or damaged. Whatever the bytes are, a Bpe that is returned stays
  // inside its tables and ends: every index in them has been looked at.
  static std::optional<Bpe> open(MappedFile file, const SourceId& source);
};

}  // namespace quern
