// Suites that run once for each instruction set.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "core/isa.h"

namespace quern::test {

inline auto every_isa() {
  return testing::Values(cpu::Isa::Scalar, cpu::Isa::Avx2, cpu::Isa::Avx512);
}

inline std::string isa_name(const testing::TestParamInfo<cpu::Isa>& instance) {
  return std::string(cpu::name(instance.param));
}

}  // namespace quern::test
