// The language stage: what language a text is in.
#pragma once

#include <memory>

#include "data/pipeline/stage.h"

namespace quern {

// Sets `lang` and `lang_score` by the program's classifier or that of model=FILE (quern data
// train-language), and `scores.language` beside `scores.cld2` and `cld2`, what CLD2 says (cld2=off
// leaves it out). keep=en,zh drops other languages, min_score=0.5 texts of which the classifier is
// less sure; text=FIELD.
std::unique_ptr<Stage> make_language_stage(StageSettings& settings);

}  // namespace quern
