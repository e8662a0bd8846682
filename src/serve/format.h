// response_format, or text.format of responses: what an answer must look like.
#pragma once

#include <string_view>

#include "serve/models.h"
#include "serve/plan.h"

namespace quern::serve {

// Reads the format from the body's text, which has been parsed and checked before, and sets
// plan.automaton. Throws BadInput for a format that cannot be kept to: nothing is left out of it.
void apply_format(std::string_view body, LoadedModel& model, Plan& plan);

}  // namespace quern::serve
