// Documents to a dataset of token ids, on all threads; the ids do not depend on their number.
#pragma once

#include <functional>

#include "core/thread_pool.h"
#include "data/dataset.h"
#include "data/documents.h"
#include "text/tokenizer.h"

namespace quern {

struct PackOptions {
  DocumentOptions documents;
  std::string name;
  int64_t shard_tokens = int64_t{1} << 26;
  std::string system;  // put before conversations that have no system message; empty: nothing
};

struct PackReport {
  DatasetManifest manifest;
  int64_t bad_records = 0;
  std::string first_bad;
};

// Called with the bytes of the input files done so far; may throw to stop.
using PackProgress = std::function<void(uint64_t bytes_done)>;

// Texts become their ids and <|endoftext|>. Conversations become ChatML and <|endoftext|>, where
// the assistant's words and the <|im_end|> after them are learnt and the rest is only read.
PackReport pack(const std::vector<fs::path>& files, const Tokenizer& tokenizer,
                const fs::path& folder, const PackOptions& options, ThreadPool& pool,
                const PackProgress& progress);

}  // namespace quern
