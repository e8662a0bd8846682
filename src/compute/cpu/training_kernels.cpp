#include "compute/cpu/training_kernels.h"

namespace quern::cpu {

const TrainingKernels& training_kernels(Isa isa) noexcept {
  switch (isa) {
    case Isa::Avx512:
      return avx512_training_kernels();
    case Isa::Avx2:
      return avx2_training_kernels();
    case Isa::Scalar:
      break;
  }
  return scalar_training_kernels();
}

const Bf16Kernels* bf16_kernels(Isa isa) noexcept {
#if defined(__x86_64__)
  if (isa == Isa::Avx512 && __builtin_cpu_supports("avx512bf16") != 0) {
    return avx512_bf16_kernels();
  }
#endif
  return nullptr;
}

}  // namespace quern::cpu
