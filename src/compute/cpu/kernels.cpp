#include "compute/cpu/kernels.h"

#include "compute/cpu/variants.h"

namespace quern::cpu {

const Kernels& kernels(Isa isa) noexcept {
  switch (isa) {
    case Isa::Avx512:
      return avx512_kernels();
    case Isa::Avx2:
      return avx2_kernels();
    case Isa::Scalar:
      break;
  }
  return scalar_kernels();
}

}  // namespace quern::cpu
