#include "compute/cpu/machine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <vector>

#include "compute/cpu/cpu_backend.h"
#include "compute/cpu/kernels.h"

namespace quern::cpu {
namespace {

double seconds_of(FunctionRef<void()> work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

double measured_read_bandwidth(ThreadPool& pool, Isa isa) {
  constexpr int64_t kBytes = int64_t{512} << 20;
  const Kernels& table = kernels(isa);
  Tensor buffer = allocate_host(DType::U8, {kBytes});
  const int64_t share = kBytes / pool.size() / 4096 * 4096;
  // Touched by the threads that will read it, with zeros that are not the system's shared page.
  pool.run([&](int thread) { std::memset(buffer.data() + thread * share, 0x3C, size_t(share)); });
  std::atomic<uint64_t> sink{0};
  double best = 0;
  for (int pass = 0; pass < 6; ++pass) {
    const double elapsed = seconds_of([&] {
      pool.run([&](int thread) { sink += table.read_all(buffer.data() + thread * share, share); });
    });
    best = std::max(best, static_cast<double>(share * pool.size()) / elapsed);
  }
  return best;
}

double measured_fma_peak(ThreadPool& pool, Isa isa) {
  const Kernels& table = kernels(isa);
  return measured_loop_peak(pool, table.fma_loop, table.fma_flops_per_round);
}

double measured_loop_peak(ThreadPool& pool, float (*loop)(int64_t rounds) noexcept,
                          int64_t flops_per_round) {
  constexpr int64_t kRounds = 2'000'000;
  std::atomic<float> sink{0};
  double best = 0;
  for (int pass = 0; pass < 4; ++pass) {
    const double elapsed = seconds_of([&] { pool.run([&](int) { sink.store(loop(kRounds)); }); });
    best = std::max(best, static_cast<double>(kRounds * flops_per_round * pool.size()) / elapsed);
  }
  return best;
}

}  // namespace quern::cpu
