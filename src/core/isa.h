// Instruction sets: which the machine has, and which is to be used. One choice for everything that
// is written for several of them, from products to UTF-8.
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

// Whether the machine has it and the choice does not forbid it, for what has no way to complain
// about a wrong word in QUERN_ISA: those who begin to compute do that.
bool may_use(Isa isa) noexcept;

// What matters of CPUID, for `quern doctor`: "avx2", "fma", "avx512f", "avx512_vnni", ...
std::vector<std::string> cpu_features();
std::string cpu_model();

}  // namespace quern::cpu
