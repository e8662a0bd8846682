// What llama.cpp takes for granted of an architecture: GGUF's metadata have no key for it, or leave
// the key out where the value is the usual one.
#pragma once

#include <string_view>

#include "model/config.h"

namespace quern {

constexpr std::string_view kRopeFreqs = "rope_freqs.weight",
                           kRopeFactorsShort = "rope_factors_short.weight",
                           kRopeFactorsLong = "rope_factors_long.weight";

constexpr int64_t kBaichuan13Layers = 40;  // so many have ALiBi

// The scale of scores that an architecture has where no key says it.
float usual_score_scale(const Config& c);
bool has_usual_score_scale(const Config& c);

Activation usual_activation(Family family);
// The value of hidden_activation, by Activation.
constexpr std::string_view kGgufActivations[] = {"silu", "gelu", "gelu_pytorch_tanh"};

}  // namespace quern
