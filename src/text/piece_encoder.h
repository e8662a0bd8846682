// Encoding valid text: cutting it into pieces, asking the cache, merging what the cache does not
// know. The definition is splitter.h's piece_end with Bpe::encode_piece_reference.
#pragma once

#include <string_view>
#include <vector>

#include "text/block_splitter.h"
#include "text/bpe.h"
#include "text/piece_cache.h"

namespace quern {

// Appends the tokens of `text`, which is valid UTF-8.
void encode_pieces(const Bpe& bpe, PieceCache& cache, std::string_view text,
                   std::vector<TokenId>& out);

}  // namespace quern
