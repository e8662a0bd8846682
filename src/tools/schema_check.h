// Whether arguments fit a tool's schema, in words that a model can use.
#pragma once

#include <string>

#include "core/ordered_json.h"

namespace quern {

// Empty where they fit, else one line: "city: is missing; days: is no integer". Schemas come from
// outside: what cannot be checked (a reference to elsewhere) is said in the line as well.
std::string argument_problem(const OrderedJson& schema, const OrderedJson& arguments);

// Whether `schema` is one that can be checked at all; else why not.
std::string schema_problem(const OrderedJson& schema);

}  // namespace quern
