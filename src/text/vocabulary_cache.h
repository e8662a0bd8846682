// A vocabulary's tables, kept between runs: made once of a .tiktoken file, then mapped.
#pragma once

#include "core/file.h"
#include "text/bpe.h"

namespace quern {

// Where they are kept: the folder that QUERN_TOKENIZER_CACHE names, or quern/tokenizers in
// $XDG_CACHE_HOME or ~/.cache. Empty where QUERN_TOKENIZER_CACHE is "off", or no folder is known.
fs::path vocabulary_cache_folder();

// The Bpe of a .tiktoken file, from `folder` where that has it, else of the file, and then put
// there. A folder that cannot be read or written, a stale or damaged file, one that belongs to or
// can be written by somebody else: all are passed over without a word. With an empty path, and for
// small vocabularies, nothing is kept. Throws what read_tiktoken and Bpe::from_ranks throw.
Bpe load_ranks(const fs::path& tiktoken, const fs::path& folder = vocabulary_cache_folder());

}  // namespace quern
