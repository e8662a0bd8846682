// Random weights for a new model.
#pragma once

#include <cstdint>
#include <span>

#include "core/thread_pool.h"
#include "model/tensors.h"

namespace quern {

// Values of one tensor as a new model has them: norms 1, biases 0, the rest normal with the
// config's initializer_range; what writes into the residual stream (attn_out, down) is scaled by 1
// / sqrt(2 layers) as in GPT-2. Elements [first, first + out.size()) of the tensor; each depends
// only on seed, tensor name and index.
void initialize(std::span<float> out, const TensorSpec& spec, const Config& config, uint64_t seed,
                int64_t first = 0);

}  // namespace quern
