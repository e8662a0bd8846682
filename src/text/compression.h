// How well tokenizers compress text: bytes per token, and relative to a baseline, for each
// language.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/thread_pool.h"
#include "text/tokenizer.h"

namespace quern {

struct NamedTokenizer {
  std::string name;
  std::shared_ptr<const Tokenizer> tokenizer;
};

struct Compression {
  std::string language;         // the file's name without .txt
  int64_t lines = 0;            // that are not empty
  int64_t bytes = 0;            // without line ends
  std::vector<int64_t> tokens;  // of each tokenizer; the first one is the baseline

  double bytes_per_token(size_t which) const { return double(bytes) / double(tokens[which]); }
  // Above 1: fewer tokens than the baseline needs.
  double relative(size_t which) const { return double(tokens[0]) / double(tokens[which]); }
};

// Each line of each *.txt in `folder` is encoded by itself, without special tokens. Languages by
// name, code last.
std::vector<Compression> measure_compression(const fs::path& folder,
                                             const std::vector<NamedTokenizer>& tokenizers,
                                             ThreadPool& threads);

// Bars of the rates relative to the baseline, a group for each language, as SVG.
std::string compression_figure(const std::vector<Compression>& rows,
                               const std::vector<NamedTokenizer>& tokenizers);

}  // namespace quern
