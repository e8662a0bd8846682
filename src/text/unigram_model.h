// Unigram vocabularies kept as a table (XLM-R's): made into a SentencePiece model.
#pragma once

#include <memory>

#include "core/file.h"
#include "text/tokenizer.h"

namespace quern {

// `folder` holds *unigram.tsv or *unigram.tsv.gz, the entries in the order of their ids, each a
// piece, a tab and its log probability (0 for special entries), and precompiled_charsmap.b64, the
// character map of the normalizer in base64. Throws BadInput naming file and line.
std::shared_ptr<const Tokenizer> load_unigram(const fs::path& folder);

// Whether a folder holds such a table.
bool has_unigram(const fs::path& folder);

}  // namespace quern
