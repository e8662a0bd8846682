#include "core/isa.h"

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>

#include "core/error.h"

namespace quern::cpu {
namespace {

struct Row {
  Isa isa;
  std::string_view name;
};
constexpr Row kRows[] = {{Isa::Scalar, "scalar"}, {Isa::Avx2, "avx2"}, {Isa::Avx512, "avx512"}};

}  // namespace

std::string_view name(Isa isa) noexcept { return kRows[static_cast<size_t>(isa)].name; }

// The compiler's check covers the operating system's part (saved registers) too.
bool supported(Isa isa) noexcept {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::Scalar:
      return true;
    case Isa::Avx2:
      return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 &&
             __builtin_cpu_supports("f16c") != 0;
    case Isa::Avx512:
      return supported(Isa::Avx2) && __builtin_cpu_supports("avx512f") != 0 &&
             __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
             __builtin_cpu_supports("avx512vl") != 0;
  }
#endif
  return isa == Isa::Scalar;
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> out;
  for (const Row& row : kRows) {
    if (supported(row.isa)) out.push_back(row.isa);
  }
  return out;
}

Isa chosen_isa() {
  const char* wanted = std::getenv("QUERN_ISA");
  if (wanted == nullptr || *wanted == '\0') return supported_isas().back();
  for (const Row& row : kRows) {
    if (row.name != wanted) continue;
    if (supported(row.isa)) return row.isa;
    throw Error(Kind::Unsupported, fmt::format("QUERN_ISA is {}, which this CPU lacks", wanted),
                "unset QUERN_ISA to use the best that it has");
  }
  throw Error(Kind::Misused, fmt::format("QUERN_ISA is '{}'", printable(wanted, 40)),
              "expected scalar, avx2 or avx512");
}

bool may_use(Isa isa) noexcept {
  if (!supported(isa)) return false;
  const char* wanted = std::getenv("QUERN_ISA");
  if (wanted == nullptr) return true;
  for (const Row& row : kRows) {
    if (row.name == wanted) return isa <= row.isa;
  }
  return true;
}

std::vector<std::string> cpu_features() {
  std::vector<std::string> out;
#if defined(__x86_64__)
  const auto add = [&](const char* name, int present) {
    if (present != 0) out.emplace_back(name);
  };
  add("sse4.2", __builtin_cpu_supports("sse4.2"));
  add("avx", __builtin_cpu_supports("avx"));
  add("avx2", __builtin_cpu_supports("avx2"));
  add("fma", __builtin_cpu_supports("fma"));
  add("f16c", __builtin_cpu_supports("f16c"));
  add("avx512f", __builtin_cpu_supports("avx512f"));
  add("avx512bw", __builtin_cpu_supports("avx512bw"));
  add("avx512vl", __builtin_cpu_supports("avx512vl"));
  add("avx512_vnni", __builtin_cpu_supports("avx512vnni"));
  add("avx512_bf16", __builtin_cpu_supports("avx512bf16"));
#endif
  return out;
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name")) continue;
    const size_t colon = line.find(": ");
    return colon == line.npos ? line : line.substr(colon + 2);
  }
  return "unknown CPU";
}

}  // namespace quern::cpu
