#include "text/pipeline/charsmap.h"

#include <cstring>

#include "core/error.h"

namespace quern {

Charsmap::Charsmap(std::string_view bytes, const std::string& source) {
  if (bytes.empty()) return;
  uint32_t size = 0;
  if (bytes.size() >= 4) std::memcpy(&size, bytes.data(), 4);
  if (size < 4 || size % 4 != 0 || size > bytes.size() - 4) {
    throw_bad_input(source + ": its precompiled charsmap is damaged");
  }
  units_.resize(size / 4);
  std::memcpy(units_.data(), bytes.data() + 4, size);
  texts_ = bytes.substr(4 + size);
  texts_ += '\0';
}

// Calls take(offset of the text, length) for every beginning that is known, shortest first, until
// it says no.
template <class Take>
void Charsmap::prefixes(std::string_view text, Take&& take) const noexcept {
  const auto offset_of = [](uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); };
  if (units_.empty()) return;
  size_t node = offset_of(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == 0) return;
    node ^= byte;
    if (node >= units_.size()) return;
    const uint32_t unit = units_[node];
    if ((unit & ((1u << 31) | 0xFF)) != byte) return;
    node ^= offset_of(unit);
    if (node >= units_.size()) return;
    if ((unit >> 8 & 1) != 0 && !take(units_[node] & 0x7FFFFFFF, i + 1)) return;
  }
}

std::string_view Charsmap::at(uint32_t offset) const noexcept {
  if (offset >= texts_.size()) return {};
  return texts_.data() + offset;  // a zero ends it; the last one is ours
}

std::optional<Charsmap::Found> Charsmap::shortest(std::string_view text) const noexcept {
  std::optional<Found> found;
  prefixes(text, [&](uint32_t offset, size_t length) {
    found = {at(offset), length};
    return false;
  });
  return found;
}

std::optional<Charsmap::Found> Charsmap::longest(std::string_view text) const noexcept {
  std::optional<Found> found;
  prefixes(text, [&](uint32_t offset, size_t length) {
    found = {at(offset), length};
    return true;
  });
  return found;
}

}  // namespace quern
