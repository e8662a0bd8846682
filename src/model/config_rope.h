// Rotary settings in config.json: rope_theta and rope_scaling as transformers 4 writes them, or
// rope_parameters as transformers 5 does.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "core/json.h"
#include "model/config.h"

namespace quern {

// Fills rope_theta, rotary_dim, rope_scaling, and of a scaling that acts past the trained context
// max_context; max_context and head_dim must be there. rope_parameters may hold one set for each
// layer type, all of which must say the same. Throws BadInput naming a field that is missing, out
// of range or unknown to its type.
void parse_rope(const Json& json, Config& config);

// The same into a config.json, in the form that both generations of transformers read.
void add_rope(const Config& config, nlohmann::ordered_json& out);

}  // namespace quern
