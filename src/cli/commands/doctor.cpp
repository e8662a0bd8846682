// quern doctor: the machine and the program, as a bug report wants them.
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <utf8proc.h>
#include <zlib.h>

#include <CLI/Version.hpp>
#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "compute/cpu/machine.h"
#include "core/json.h"
#include "core/progress.h"

namespace quern::cli {
namespace {

void doctor(bool json) {
  ThreadPool pool(globals().threads);
  const cpu::Isa isa = cpu::chosen_isa();
  const double bandwidth = cpu::measured_read_bandwidth(pool, isa);
  const double peak = cpu::measured_fma_peak(pool, isa);
  const nlohmann::ordered_json facts = {
      {"quern", QUERN_VERSION},
      {"compiler", "GCC " __VERSION__},
      {"cpu", cpu::cpu_model()},
      {"cpu_features", cpu::cpu_features()},
      {"instruction_set", cpu::name(isa)},
      {"cores", ThreadPool::available_cores()},
      {"threads", pool.size()},
      {"memory_available_bytes", available_memory()},
      {"read_bandwidth_bytes_per_s", bandwidth},
      {"fma_peak_flop_per_s", peak},
      {"libraries",
       {{"nlohmann-json", fmt::format("{}.{}.{}", NLOHMANN_JSON_VERSION_MAJOR,
                                      NLOHMANN_JSON_VERSION_MINOR, NLOHMANN_JSON_VERSION_PATCH)},
        {"CLI11", CLI11_VERSION},
        {"fmt",
         fmt::format("{}.{}.{}", FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100)},
        {"utf8proc", utf8proc_version()},
        {"zlib", zlibVersion()},
        {"OpenSSL", OpenSSL_version(OPENSSL_VERSION_STRING)}}},
  };
  if (json) {
    print(dump(facts, 2) + "\n");
    return;
  }
  const auto row = [](std::string_view label, const std::string& value) {
    print(fmt::format("{:<18} {}\n", label, value));
  };
  row("quern", QUERN_VERSION);
  row("compiler", "GCC " __VERSION__);
  row("CPU", cpu::cpu_model());
  row("features", fmt::format("{}", fmt::join(cpu::cpu_features(), " ")));
  row("instruction set",
      std::string(cpu::name(isa)) + " (QUERN_ISA=scalar|avx2|avx512 forces one)");
  row("cores, threads", fmt::format("{}, {}", ThreadPool::available_cores(), pool.size()));
  row("free memory", human_bytes(available_memory()));
  row("read bandwidth", rate(bandwidth / 1e9, "GB/s"));
  row("float32 peak", rate(peak / 1e9, "GFLOP/s"));
  for (const auto& [library, version] : facts["libraries"].items()) {
    row("  " + library, version.get<std::string>());
  }
}

}  // namespace

void add_doctor(CLI::App& root) {
  Command command(root, "doctor", "CPU features, measured limits, libraries, versions",
                  {{"doctor", "look at the machine"}, {"doctor --json", "for a bug report"}});
  auto json = std::make_shared<bool>(false);
  command.flag("--json", *json, "Print one JSON object");
  command.on_run([json] { doctor(*json); });
}

}  // namespace quern::cli
