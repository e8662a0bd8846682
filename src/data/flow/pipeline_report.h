// What a chain of stages did, for people: counts, scores, samples; and one document's way through it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/file.h"

namespace quern {

// Of folders that stages wrote (data/pipeline/stage.h), in the order of the chain.
struct StageFolder {
  std::string name;
  fs::path folder;
};

// One page of HTML that needs nothing from elsewhere: documents through the stages; languages and
// sources; of each score its distribution before and after; of each rule the values that dropped
// documents, the threshold, and up to 20 kept and 20 dropped documents drawn by `seed`, searchable.
// Folders without a manifest are passed over.
std::string pipeline_report(const std::vector<StageFolder>& stages, uint64_t seed);

// What each stage did to the document `id`, as lines of text; of filter every rule's value. Throws
// BadInput where no stage saw it.
std::string explain_document(const std::vector<StageFolder>& stages, const std::string& id);

}  // namespace quern
