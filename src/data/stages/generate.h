// The generate stage: records out of a grammar.
#pragma once

#include <cstdint>
#include <memory>

#include "data/pipeline/stage.h"

namespace quern {

// Each input is a grammar (data/synthetic/text_grammar.h) of which `count` records are made. Throws
// BadInput where a grammar asks for distinct records and has fewer.
std::unique_ptr<Stage> make_generate_stage(StageSettings& settings,
                                           const std::vector<fs::path>& grammars, int64_t count,
                                           uint64_t seed);

}  // namespace quern
