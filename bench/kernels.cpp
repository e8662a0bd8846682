// Matrix products at the shapes of a 7B model and of small ones, those of inference and those of
// training (which may add in another order), beside the machine's peak and, where it is installed,
// OpenBLAS on the same shape in the same run.
//   bench_kernels [rows]
#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <functional>
#include <vector>

#include "compute/cpu/cpu_training_backend.h"
#include "compute/cpu/machine.h"
#include "core/rng.h"
#include "race.h"

namespace {

using namespace quern;

// OpenBLAS by dlopen: an optional yardstick, not a dependency.
using Sgemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int,
                       float, float*, int);
Sgemm find_openblas(int threads) {
  // Its threads would go on spinning while the next candidate runs.
  ::setenv("OPENBLAS_THREAD_TIMEOUT", "4", 0);
  void* library = ::dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return nullptr;
  using SetThreads = void (*)(int);
  if (auto set = reinterpret_cast<SetThreads>(::dlsym(library, "openblas_set_num_threads"))) {
    set(threads);
  }
  return reinterpret_cast<Sgemm>(::dlsym(library, "cblas_sgemm"));
}

Tensor random_tensor(Backend& run, int64_t rows, int64_t cols, DType dtype) {
  Tensor t = run.allocate(dtype, {rows, cols});
  Rng rng(static_cast<uint64_t>(rows));
  for (int64_t i = 0; i < rows * cols; ++i) {
    const float value = static_cast<float>(rng.next_u32() >> 8) * 0x1p-23f - 1;
    if (dtype == DType::F32) {
      t.floats()[static_cast<size_t>(i)] = value;
    } else {
      reinterpret_cast<uint16_t*>(t.data())[i] = to_bf16(value);
    }
  }
  return t;
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t rows = argc > 1 ? std::atoll(argv[1]) : 512;
  ThreadPool pool;
  CpuBackend run(pool);
  CpuTrainingBackend training(pool);
  const double peak = cpu::measured_fma_peak(pool, run.isa());
  const double bandwidth = cpu::measured_read_bandwidth(pool, run.isa());
  const Sgemm openblas = find_openblas(pool.size());
  fmt::print("{}, {}, {} threads: {:.0f} GFLOP/s float32, {:.1f} GB/s\n", cpu::cpu_model(),
             cpu::name(run.isa()), pool.size(), peak / 1e9, bandwidth / 1e9);
  fmt::print("The peak is that of the arithmetic: bf16 where the CPU multiplies such numbers.\n");
  fmt::print("{:<30} {:>10} {:>8} {:>8} {:>10} {:>10}\n", "product", "GFLOP/s", "of peak", "GB/s",
             "training", "OpenBLAS");
  const std::pair<int64_t, int64_t> shapes[] = {
      {4096, 4096}, {11008, 4096}, {4096, 11008}, {704, 256}, {768, 768}};
  for (const auto& [out, in] : shapes) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
      const Tensor weight_data = random_tensor(run, out, in, dtype);
      Tensor x = random_tensor(run, rows, in + 16, DType::F32);
      Tensor y = run.allocate(DType::F32, {rows, out});
      const Weight weight = {.format = dtype == DType::F32 ? WeightFormat::F32 : WeightFormat::BF16,
                             .rows = out,
                             .cols = in,
                             .data = weight_data.data()};
      const MatmulPart part = {rows_of(y, rows), &weight, {}, false};
      const ConstRows input = {x.floats().data(), rows, in, in + 16};
      std::vector<std::function<void()>> candidates = {[&] { run.matmul(input, {&part, 1}); }};
      if (dtype == DType::F32) candidates.push_back([&] { training.matmul(input, {&part, 1}); });
      if (openblas != nullptr && dtype == DType::F32) {
        candidates.push_back([&] {
          constexpr int kRowMajor = 101, kNoTrans = 111, kTrans = 112;
          openblas(kRowMajor, kNoTrans, kTrans, int(rows), int(out), int(in), 1, input.data,
                   int(in + 16), reinterpret_cast<const float*>(weight_data.data()), int(in), 0,
                   y.floats().data(), int(out));
        });
      }
      const auto times = bench::race(candidates, 5);
      const double flops = 2.0 * static_cast<double>(rows * out * in);
      const auto speed = [&](size_t i) {
        return times.size() > i ? fmt::format("{:.0f}", flops / times[i] / 1e9) : "";
      };
      fmt::print("{:<30} {:>10} {:>6.0f} % {:>8.1f} {:>10} {:>10}\n",
                 fmt::format("{} {} x {} x {}", name(dtype), rows, out, in), speed(0),
                 100 * flops / times[0] / run.measured_arithmetic(weight).peak,
                 static_cast<double>(weight.rows * weight.cols) *
                     static_cast<double>(size_bytes(dtype)) / times[0] / 1e9,
                 speed(1), speed(2));
    }
  }
  return 0;
}
