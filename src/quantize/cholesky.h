// The linear algebra of GPTQ, in double, in place, by blocks.
#pragma once

#include <cstdint>
#include <span>

#include "core/thread_pool.h"

namespace quern {

// The upper factor U of the inverse of a symmetric matrix [dim, dim]: H⁻¹ = Uᵀ U, in place. False
// where H is not positive definite; then `h` holds nothing of use.
bool inverse_cholesky(ThreadPool& pool, std::span<double> h, int64_t dim);

}  // namespace quern
