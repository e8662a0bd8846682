#include "core/launcher.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <thread>

#include "core/thread_pool.h"

namespace quern {
namespace {

std::optional<int> number(const char* name) noexcept {
  const char* text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  const std::string_view digits = text;
  int value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || value < 0)
    return std::nullopt;
  return value;
}

}  // namespace

Launcher launcher() noexcept {
  struct Names {
    const char *rank, *size, *local, *name;
  };
  constexpr Names kNames[] = {
      {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "Open MPI"},
      {"PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS", "MPI"},
      {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "Slurm"}};
  for (const Names& one : kNames) {
    const auto rank = number(one.rank), size = number(one.size);
    if (rank && size && *size > 1 && *rank < *size) {
      return {*rank, *size, number(one.local).value_or(*size), one.name};
    }
  }
  const auto task = number("SLURM_ARRAY_TASK_ID"), count = number("SLURM_ARRAY_TASK_COUNT");
  if (task && count && *count > 1) {
    return {*task - number("SLURM_ARRAY_TASK_MIN").value_or(0), *count, 1, "a Slurm array"};
  }
  return {};
}

int threads_of_process(int wanted) {
  const int here = launcher().local_size;
  if (wanted > 0 || here <= 1) return wanted;
  const int cores = ThreadPool::available_cores();
  if (cores < static_cast<int>(std::thread::hardware_concurrency())) return cores;
  return std::max(1, cores / here);
}

}  // namespace quern
