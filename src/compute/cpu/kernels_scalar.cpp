// The kernels compiled for Scalar; see kernels.h.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>
#include <utility>

#include "compute/cpu/kernels.h"
#include "compute/cpu/variants.h"
#include "core/dtype.h"

namespace quern::cpu {
namespace {

// The order matters.
// clang-format off
#include "compute/cpu/simd_scalar.inl"
#include "compute/cpu/kernels.inl"
// clang-format on

}  // namespace

const Kernels& scalar_kernels() noexcept {
  static constexpr Kernels kTable = make_table(Isa::Scalar);
  return kTable;
}

}  // namespace quern::cpu
