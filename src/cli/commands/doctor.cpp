// quern doctor: the machine and the program, as a bug report wants them.
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <spdlog/version.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <toml++/toml.h>
#include <utf8proc.h>
#include <zlib.h>
#include <zstd.h>

#include <CLI/Version.hpp>
#include <boost/version.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "compute/cpu/machine.h"
#include "core/json.h"
#include "core/launcher.h"
#include "core/progress.h"
#include "train/cluster_check.h"

namespace quern::cli {
namespace {

using nlohmann::ordered_json;

// The first line of a small file of the system; empty where there is none.
std::string first_line(const fs::path& path) {
  std::string line;
  std::getline(std::ifstream(path) >> std::ws, line);
  return line;
}

// A number of bytes that a file holds; nothing where it says "max" or is not there.
ordered_json bytes_in(const fs::path& path) {
  const std::string line = first_line(path);
  char* end = nullptr;
  const uint64_t value = std::strtoull(line.c_str(), &end, 10);
  return end != line.c_str() && value < uint64_t{1} << 60 ? ordered_json(value) : ordered_json();
}

uint64_t total_memory() {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("MemTotal:")) return std::strtoull(line.c_str() + 9, nullptr, 10) * 1024;
  }
  return 0;
}

ordered_json resource_limit(decltype(RLIMIT_AS) resource) {
  rlimit limit{};
  if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return nullptr;
  return static_cast<uint64_t>(limit.rlim_cur);
}

// Limits of this process and its control group; null is no limit.
ordered_json limits() {
  const fs::path group = "/sys/fs/cgroup";
  const bool second = fs::exists(group / "memory.max");
  return {{"address_space_bytes", resource_limit(RLIMIT_AS)},
          {"locked_memory_bytes", resource_limit(RLIMIT_MEMLOCK)},
          {"file_size_bytes", resource_limit(RLIMIT_FSIZE)},
          {"open_files", resource_limit(RLIMIT_NOFILE)},
          {"processes", resource_limit(RLIMIT_NPROC)},
          {"cgroup_memory_bytes",
           bytes_in(second ? group / "memory.max" : group / "memory/memory.limit_in_bytes")},
          {"cgroup_cpu", second ? ordered_json(first_line(group / "cpu.max")) : ordered_json()}};
}

// Display controllers by the names their drivers give, else by their maker and number. No kernel of
// Quern runs on them; a report should say what was there.
ordered_json gpus() {
  ordered_json all = ordered_json::array();
  std::error_code absent;
  for (const auto& entry : fs::directory_iterator("/proc/driver/nvidia/gpus", absent)) {
    std::ifstream file(entry.path() / "information");
    for (std::string line; std::getline(file, line);) {
      if (!line.starts_with("Model:")) continue;
      all.push_back(line.substr(std::min(line.find_first_not_of(" \t", 6), line.size())));
    }
  }
  for (const auto& entry : fs::directory_iterator("/sys/bus/pci/devices", absent)) {
    if (!first_line(entry.path() / "class").starts_with("0x03")) continue;
    const std::string vendor = first_line(entry.path() / "vendor");
    if (vendor == "0x10de" && !all.empty()) continue;  // named above
    const char* maker = vendor == "0x10de"   ? "NVIDIA"
                        : vendor == "0x1002" ? "AMD"
                        : vendor == "0x8086" ? "Intel"
                                             : "display controller";
    all.push_back(fmt::format("{} {}:{}", maker, vendor, first_line(entry.path() / "device")));
  }
  return all;
}

ordered_json libraries() {
  const auto version = [](int major, int minor, int patch) {
    return fmt::format("{}.{}.{}", major, minor, patch);
  };
  return {
      {"nlohmann-json", version(NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR,
                                NLOHMANN_JSON_VERSION_PATCH)},
      {"CLI11", CLI11_VERSION},
      {"fmt", version(FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100)},
      {"spdlog", version(SPDLOG_VER_MAJOR, SPDLOG_VER_MINOR, SPDLOG_VER_PATCH)},
      {"toml++", version(TOML_LIB_MAJOR, TOML_LIB_MINOR, TOML_LIB_PATCH)},
      {"Boost", version(BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000, BOOST_VERSION % 100)},
      {"utf8proc", utf8proc_version()},
      {"zlib", zlibVersion()},
      {"zstd", ZSTD_versionString()},
      {"OpenSSL", OpenSSL_version(OPENSSL_VERSION_STRING)}};
}

std::string limit_text(const ordered_json& limit, bool bytes) {
  if (limit.is_null()) return "no limit";
  return bytes ? human_bytes(limit.get<uint64_t>()) : dump(limit);
}

void doctor(bool json) {
  ThreadPool pool(globals().threads);
  const cpu::Isa isa = cpu::chosen_isa();
  const double bandwidth = cpu::measured_read_bandwidth(pool, isa);
  const double peak = cpu::measured_fma_peak(pool, isa);
  utsname system{};
  ::uname(&system);
  std::error_code failure;
  const fs::space_info disk = fs::space(".", failure);
  const ordered_json facts = {
      {"quern", QUERN_VERSION},
      {"compiler", "GCC " __VERSION__},
      {"system", fmt::format("{} {} {}", system.sysname, system.release, system.machine)},
      {"cpu", cpu::cpu_model()},
      {"cpu_features", cpu::cpu_features()},
      {"instruction_set", cpu::name(isa)},
      {"cores", ThreadPool::available_cores()},
      {"threads", pool.size()},
      {"memory_bytes", total_memory()},
      {"memory_available_bytes", available_memory()},
      {"disk_bytes", failure ? ordered_json() : ordered_json(disk.capacity)},
      {"disk_available_bytes", failure ? ordered_json() : ordered_json(disk.available)},
      {"limits", limits()},
      {"gpus", gpus()},
      {"read_bandwidth_bytes_per_s", bandwidth},
      {"fma_peak_flop_per_s", peak},
      {"libraries", libraries()},
  };
  if (json) {
    print(dump(facts, 2) + "\n");
    return;
  }
  const auto row = [](std::string_view label, const std::string& value) {
    print(fmt::format("{:<18} {}\n", label, value));
  };
  const ordered_json& limit = facts["limits"];
  row("quern", QUERN_VERSION);
  row("compiler", "GCC " __VERSION__);
  row("system", facts["system"]);
  row("CPU", cpu::cpu_model());
  row("features", fmt::format("{}", fmt::join(cpu::cpu_features(), " ")));
  row("instruction set",
      std::string(cpu::name(isa)) + " (QUERN_ISA=scalar|avx2|avx512 forces one)");
  row("cores, threads", fmt::format("{}, {}", ThreadPool::available_cores(), pool.size()));
  row("memory", fmt::format("{}, {} available", human_bytes(total_memory()),
                            human_bytes(available_memory())));
  if (!failure) {
    row("disk here",
        fmt::format("{}, {} available", human_bytes(disk.capacity), human_bytes(disk.available)));
  }
  row("limits", fmt::format("memory {}, locked memory {}, file size {}, open files {}",
                            limit_text(limit["address_space_bytes"], true),
                            limit_text(limit["locked_memory_bytes"], true),
                            limit_text(limit["file_size_bytes"], true),
                            limit_text(limit["open_files"], false)));
  row("control group",
      fmt::format(
          "memory {}, cpu {}", limit_text(limit["cgroup_memory_bytes"], true),
          limit["cgroup_cpu"].is_string() ? limit["cgroup_cpu"].get<std::string>() : "no limit"));
  std::string names;
  for (const ordered_json& gpu : facts["gpus"]) {
    names += (names.empty() ? "" : ", ") + gpu.get<std::string>();
  }
  row("GPUs", names.empty() ? "none" : names + " (not used)");
  row("read bandwidth", rate(bandwidth / 1e9, "GB/s"));
  row("float32 peak", rate(peak / 1e9, "GFLOP/s"));
  for (const auto& [library, version] : facts["libraries"].items()) {
    row("  " + library, version.get<std::string>());
  }
}

ordered_json to_json(const ClusterReport& report) {
  ordered_json out = {{"ranks", ordered_json::array()},
                      {"links", ordered_json::array()},
                      {"all_reduce", ordered_json::array()},
                      {"problems", report.problems}};
  for (const auto& rank : report.ranks) {
    out["ranks"].push_back({{"host", rank.host},
                            {"threads", rank.threads},
                            {"gflops", rank.gflops},
                            {"read_gb_per_s", rank.read_gb_per_s}});
  }
  for (const auto& link : report.links) {
    out["links"].push_back({{"ranks", {link.a, link.b}},
                            {"same_host", link.same_host},
                            {"gb_per_s", link.gb_per_s},
                            {"microseconds", link.microseconds}});
  }
  for (const auto& one : report.all_reduces) {
    out["all_reduce"].push_back(
        {{"bytes", one.bytes}, {"seconds", one.seconds}, {"bus_gb_per_s", one.bus_gb_per_s}});
  }
  return out;
}

// All ranks of a job measure their machines and the links between them; the first one tells.
void doctor_cluster(bool json) {
  const std::unique_ptr<Communicator> ranks = make_communicator();
  ThreadPool pool(threads_of_process(globals().threads));
  CpuTrainingBackend backend(pool, cpu::chosen_isa());
  utsname names{};
  ::uname(&names);
  const ClusterReport report = check_cluster(*ranks, backend, pool, names.nodename);
  if (!ranks->first()) return;
  if (json) return print(dump(to_json(report)) + "\n");
  print(fmt::format("{:<6}{:<24}{:>8}{:>12}{:>12}\n", "rank", "host", "threads", "GFLOP/s",
                    "read GB/s"));
  for (size_t i = 0; i < report.ranks.size(); ++i) {
    const auto& rank = report.ranks[i];
    print(fmt::format("{:<6}{:<24}{:>8}{:>12.0f}{:>12.1f}\n", i, rank.host, rank.threads,
                      rank.gflops, rank.read_gb_per_s));
  }
  if (ranks->alone()) {
    return print("one process; under mpirun or srun links are measured, too\n");
  }
  print(fmt::format("\n{:<12}{:<16}{:>12}{:>12}\n", "link", "", "GB/s", "us"));
  for (const auto& link : report.links) {
    print(fmt::format("{:<12}{:<16}{:>12.2f}{:>12.1f}\n", fmt::format("{} - {}", link.a, link.b),
                      link.same_host ? "inside a host" : "between hosts", link.gb_per_s,
                      link.microseconds));
  }
  print(fmt::format("\n{:<12}{:>12}{:>12}\n", "all-reduce", "ms", "bus GB/s"));
  for (const auto& one : report.all_reduces) {
    print(fmt::format("{:<12}{:>12.3f}{:>12.2f}\n", human_bytes(one.bytes), 1e3 * one.seconds,
                      one.bus_gb_per_s));
  }
  print("\n");
  for (const std::string& problem : report.problems) print(problem + "\n");
  if (report.problems.empty()) print("no rank and no link stands out\n");
}

}  // namespace

void add_doctor(CLI::App& root) {
  Command command(root, "doctor", "Describe the machine: CPU, memory, limits, versions, peaks",
                  {{"doctor", "look at the machine"}, {"doctor --json", "for a bug report"}});
  auto json = std::make_shared<bool>(false);
  command.flag("--json", *json, "Print one JSON object");
  auto cluster = std::make_shared<bool>(false);
  command.flag("--cluster", *cluster,
               "Measure all ranks of a job and the links between them: mpirun -n N quern doctor "
               "--cluster");
  command.on_run([json, cluster] { *cluster ? doctor_cluster(*json) : doctor(*json); });
}

}  // namespace quern::cli
