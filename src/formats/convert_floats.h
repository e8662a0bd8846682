// Floats to the bytes of a file.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/dtype.h"

namespace quern {

// `out` is made to hold the values as F32, F16 or BF16.
void encode_floats(std::span<const float> values, DType dtype, std::vector<std::byte>& out);

}  // namespace quern
