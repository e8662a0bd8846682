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

}  // namespace quern::cpu
