// Encoding a large text on all cores, with the same ids for any number of threads.
#pragma once

#include <string_view>
#include <vector>

#include "core/thread_pool.h"
#include "text/tokenizer.h"

namespace quern {

// The ids that tokenizer.encode(text) gives. Byte-level BPE's work is shared by the threads; other
// tokenizers encode the text as a whole.
std::vector<TokenId> encode_parallel(const Tokenizer& tokenizer, std::string_view text,
                                     ThreadPool& threads, size_t chunk_bytes = size_t{1} << 20);

// The first place from `from` on, 0 < `from`, at which a text may be cut and its parts encoded one
// by one: after a line feed, before a letter or number. text.size() where there is none.
size_t safe_cut(std::string_view text, size_t from);

}  // namespace quern
