// The filter stage: rule sets, personal data masked, in the order given.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/pipeline/stage.h"

namespace quern {

// --set rules=gopher,gopher_repetition,c4,fineweb,pii,quality,toxic,words,ngram; text=FIELD; any rule's name
// to change its threshold (gopher.min_words=20); chinese=auto|on|off; quality.model, toxic.model and
// words.file=FILE; quality.threshold, toxic.threshold, words.most, ngram.model, ngram.max_perplexity; vote=any|all|sum, weight.SET and
// vote.threshold.
std::unique_ptr<Stage> make_filter_stage(StageSettings& settings);

}  // namespace quern
