// Sequences for training out of datasets, in an order that follows from a seed alone: the same for
// any number of threads, and continued exactly from a stored position.
//
// Of every source the loader takes a fixed share of the sequences: the next one comes from the
// source that is furthest behind its weight. Inside a source each epoch visits all its windows once
// in a pseudo-random order.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace quern {

enum class Packing : uint8_t {
  Stream,     // windows of `seq` tokens cut from the stream of documents, another cut each epoch
  Documents,  // whole documents side by side while they fit; what is longer than `seq` is cut off
  Pairs,      // a document a sequence; documents 2i and 2i + 1 come one after the other
};
// "stream" or "documents". Throws BadInput for another word, naming `source`.
Packing parse_packing(std::string_view name, std::string_view source);

struct LoaderSource {
  const Dataset* dataset;
  double weight;  // any positive scale
};

struct LoaderOptions {
  int64_t seq = 512;
  uint64_t seed = 0;
  Packing packing = Packing::Stream;
  // Tokens see only their own document (TrainingBatch::starts), not what stands before it.
  bool isolate_documents = true;
};

// Where a loader stands: how many sequences each source has given.
using LoaderPosition = std::vector<int64_t>;

class Loader {
 public:
  // Throws BadInput naming a dataset that holds no window of `seq` tokens.
  Loader(std::vector<LoaderSource> sources, const LoaderOptions& options);

  // The next sequence: ids, labels and starts of [seq] each; `starts` stay 0 unless documents are
  // isolated. A window that is not full ends in tokens that no label counts.
  void next(std::span<int32_t> ids, std::span<int32_t> labels, std::span<int32_t> starts);

  const LoaderPosition& position() const noexcept { return drawn_; }
  // Throws BadInput for a position of another number of sources.
  void seek(const LoaderPosition& position);

  // Sequences of one epoch of a source, and the epochs it has begun.
  int64_t windows(size_t source) const noexcept;
  double epochs(size_t source) const noexcept;

 private:
  struct Window {
    int64_t first, tokens;
  };
  struct Source {
    const Dataset* dataset;
    double share;                 // weights sum to 1
    std::vector<Window> windows;  // of Packing::Documents and Pairs
  };
  Window window(size_t source, int64_t drawn) const;
  size_t next_source() const noexcept;

  LoaderOptions options_;
  std::vector<Source> sources_;
  LoaderPosition drawn_;
};

// Where `index` of [0, count) goes in a permutation chosen by the key: a Feistel network over
// Philox, walked until it lands inside. Needs no memory.
int64_t permuted(int64_t index, int64_t count, uint64_t key, uint64_t stream) noexcept;

}  // namespace quern
