// The pieces of a text one after the other, cut a block at a time where that can be done.
#pragma once

#include <bit>
#include <string_view>

#include "text/block_splitter.h"
#include "text/splitter.h"

namespace quern {

// Calls take(piece) for every piece of `text`, which is valid UTF-8.
template <class Take>
void for_each_piece(std::string_view text, Take&& take) {
  const BlockCuts cuts_of = block_cuts();
  const unicode::Class* const classes = unicode::class_table();
  for (size_t begin = 0; begin < text.size();) {
    uint64_t cuts = 0;
    if (text.size() - begin >= kSplitBlock) cuts = cuts_of(text.data() + begin, classes);
    if (cuts == 0) {
      const size_t end = piece_end(text, begin);
      take(text.substr(begin, end - begin));
      begin = end;
      continue;
    }
    size_t at = 0;
    for (; cuts != 0; cuts &= cuts - 1) {
      const auto end = static_cast<size_t>(std::countr_zero(cuts));
      take(text.substr(begin + at, end - at));
      at = end;
    }
    begin += at;
  }
}

}  // namespace quern
