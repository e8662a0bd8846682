// Rotary settings in config.json: rope_theta and rope_scaling as transformers 4 writes them, or
// rope_parameters as transformers 5 does.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "core/json.h"
#include "model/config.h"

namespace quern {

// Fills rope_theta, rotary_dim, rope_scaling, and of a scaling that acts past the trained context
// max_context; what the config does not say stays as it is, and max_context and head_dim must be
// there. rope_parameters may hold one set for each layer type: where some of rope_layers are Local,
// that of sliding_attention is theirs, else all must say the same. Throws BadInput naming a field
// that is missing, out of range or unknown to its type.
void parse_rope(const Json& json, Config& config);

// The same into a config.json, in the form that both generations of transformers read.
void add_rope(const Config& config, nlohmann::ordered_json& out);

}  // namespace quern
