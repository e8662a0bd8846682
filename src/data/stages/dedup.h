// Duplicates are dropped, one of each cluster stays: the one of the best score, then the longest,
// then the one whose id sorts first.
#pragma once

#include <optional>
#include <string>

#include "data/pipeline/stage.h"
#include "data/stages/minhash.h"

namespace quern {

struct DedupOptions {
  enum class Method { Exact, MinHash, Paragraph, Substring } method = Method::MinHash;
  MinHashOptions minhash;
  std::optional<double> verify = 0.8;  // least Jaccard similarity of a candidate; none: all count
  std::string within;                  // field whose values part the corpus; empty: one corpus
  std::string score;                   // name in `scores` that says which copy is best
  std::string clusters;                // file to write {"keep", "drop", "jaccard"} to
  int64_t passage = 50;                // of Substring: words of the shortest
};

// Paragraph and Substring cut instead: what stands in an earlier place goes, and a document of which
// nothing is left.
//
// Three passes over the inputs: signatures, the candidates' shingles, the output. What grows with
// the corpus lies in files under `out`/.dedup, which are removed at the end. `on_pass` is told what
// begins.
StageReport run_dedup(const DedupOptions& options, const StageOptions& stage,
                      const std::function<void(std::string_view pass)>& on_pass);

}  // namespace quern
