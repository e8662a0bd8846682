#include "compute/cpu/quant_kernels.h"

namespace quern::cpu {

RoundedForm rounded_form(const PackedMatrix& matrix) noexcept {
  if (matrix.activation_bits == 16) {
    return matrix.bits == 8 ? RoundedForm::Words : RoundedForm::TwoBytes;
  }
  const bool all_levels =
      matrix.scales == PackedScales::Symmetric || matrix.scales == PackedScales::Zeros;
  return matrix.bits == 8 && all_levels ? RoundedForm::Pairs : RoundedForm::Bytes;
}

std::span<const QuantKernels* const> quant_variants() noexcept {
  static const QuantKernels* const kVariants[] = {&quant_vnni(), &quant_avx2(), &quant_scalar()};
  return kVariants;
}

const QuantKernels& quant_kernels(Isa isa) noexcept {
  if (isa == Isa::Avx512 && quant_vnni().supported()) return quant_vnni();
  if (isa != Isa::Scalar && quant_avx2().supported()) return quant_avx2();
  return quant_scalar();
}

}  // namespace quern::cpu
