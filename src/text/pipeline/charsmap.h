// A precompiled map of characters, as SentencePiece keeps it: a double array of prefixes, and the
// texts that they become.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

class Charsmap {
 public:
  Charsmap() = default;
  // Throws BadInput naming `source` where the table does not fit the bytes.
  Charsmap(std::string_view bytes, const std::string& source);

  // The text that the shortest, or longest, known beginning of `text` becomes, and how many bytes
  // that is. Nothing where none is known.
  struct Found {
    std::string_view text;
    size_t length;
  };
  std::optional<Found> shortest(std::string_view text) const noexcept;
  std::optional<Found> longest(std::string_view text) const noexcept;

  bool empty() const noexcept { return units_.empty(); }

 private:
  template <class Take>
  void prefixes(std::string_view text, Take&& take) const noexcept;
  std::string_view at(uint32_t offset) const noexcept;

  std::vector<uint32_t> units_;
  std::string texts_;
};

}  // namespace quern
