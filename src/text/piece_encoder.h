// Encoding valid text: cutting it into pieces, asking the cache, merging what the cache does not
// know. The definition is splitter.h's piece_end_of with Bpe::encode_piece_reference.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "text/block_splitter.h"
#include "text/bpe.h"
#include "text/piece_cache.h"

namespace quern {

// Appends the tokens of `text`, which is valid UTF-8.
void encode_pieces(const Bpe& bpe, PieceCache& cache, const Splitter& splitter,
                   std::string_view text, std::vector<TokenId>& out);

// The same of pieces that are cut already. kSplitBlock bytes behind `text` can be read.
struct Cut {
  size_t begin, end;
};
void encode_pieces(const Bpe& bpe, PieceCache& cache, std::string_view text,
                   std::span<const Cut> cuts, std::vector<TokenId>& out);

}  // namespace quern
