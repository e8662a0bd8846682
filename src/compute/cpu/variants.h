// The tables that kernels.cpp chooses from; each is defined in the file of its instruction set.
#pragma once

#include "compute/cpu/kernels.h"

namespace quern::cpu {

const Kernels& scalar_kernels() noexcept;
const Kernels& avx2_kernels() noexcept;
const Kernels& avx512_kernels() noexcept;
const Bf16PairKernels* avx512_bf16_pair_kernels() noexcept;

}  // namespace quern::cpu
