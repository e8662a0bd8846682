// The training kernels compiled for Scalar; see training_kernels.h.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "compute/cpu/training_kernels.h"
#include "core/dtype.h"

namespace quern::cpu {
namespace {

// The order matters.
// clang-format off
#include "compute/cpu/simd_scalar.inl"
#include "compute/cpu/training_kernels.inl"
// clang-format on

}  // namespace

const TrainingKernels& scalar_training_kernels() noexcept {
  static constexpr TrainingKernels kTable = make_table();
  return kTable;
}

}  // namespace quern::cpu
