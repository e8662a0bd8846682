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

const Bf16PairKernels* bf16_pair_kernels(Isa isa) noexcept {
#if defined(__x86_64__)
  if (isa == Isa::Avx512 && __builtin_cpu_supports("avx512bf16") != 0) {
    return avx512_bf16_pair_kernels();
  }
#endif
  return nullptr;
}

}  // namespace quern::cpu
