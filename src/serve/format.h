// response_format, text.format of responses, guided_*, tools: what an answer must look like.
#pragma once

#include "serve/body.h"
#include "serve/models.h"
#include "serve/plan.h"

namespace quern::serve {

// Sets plan.format and plan.automaton. Throws BadInput for a format that cannot be kept to as a
// whole.
void apply_format(const Body& body, const Parameters& given, LoadedModel& model, Plan& plan);

}  // namespace quern::serve
