// Instruction sets: which the machine has, and which the kernels are to use.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace quern::cpu {

enum class Isa { Scalar, Avx2, Avx512 };

std::string_view name(Isa isa) noexcept;
bool supported(Isa isa) noexcept;

// Those that this machine has, plainest first.
std::vector<Isa> supported_isas();

// The best one, or the one that QUERN_ISA=scalar|avx2|avx512 asks for. Throws Misused for another
// word, Unsupported where the machine lacks it.
Isa chosen_isa();

// What matters of CPUID, for `quern doctor`: "avx2", "fma", "avx512f", "avx512_vnni", ...
std::vector<std::string> cpu_features();
std::string cpu_model();

}  // namespace quern::cpu
