// Speed of a full training step (forward, backward, clip, AdamW) at the two shapes that Quern is
// compared with PyTorch at (bench/training_peer.py), and of its parts.
//
//   bench_training [small|large] [fp32|bf16] [steps] [threads]
//
// GFLOP/s counts 6 P + 6 L T d for a token: P parameters without the embedding, L layers, T
// positions in a sequence, d hidden dims.
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "compute/cpu/cpu_training_backend.h"
#include "compute/cpu/machine.h"
#include "core/rng.h"
#include "model/backward.h"
#include "race.h"

namespace {

using namespace quern;

struct BenchShape {
  std::string_view name;
  int64_t hidden, layers, heads, ffn, vocab, seq, batch;
};
constexpr BenchShape kShapes[] = {{"small", 256, 8, 8, 704, 8192, 512, 8},
                                  {"large", 768, 12, 12, 2048, 8192, 1024, 2}};

Config config_of(const BenchShape& shape) {
  Config c;
  c.layers = shape.layers;
  c.hidden = shape.hidden;
  c.heads = c.kv_heads = shape.heads;
  c.head_dim = c.rotary_dim = shape.hidden / shape.heads;
  c.ffn = shape.ffn;
  c.vocab = c.output_vocab = shape.vocab;
  c.trained_context = c.max_context = shape.seq;
  c.qkv_bias = true;
  return c;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Of all threads: what a step costs whatever else the machine is busy with.
double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void run(const BenchShape& shape, Precision precision, int steps, int threads) {
  ThreadPool pool(threads);
  CpuTrainingBackend backend(pool, cpu::chosen_isa(), precision);
  const double peak = backend.measured_peak();
  const Config config = config_of(shape);
  Parameters parameters(backend, config), m(backend, config), v(backend, config);
  parameters.initialize(config, 1);
  TrainingPass pass(backend, config,
                    {.batch = shape.batch,
                     .seq = shape.seq,
                     .own_gradients = true,
                     .rounded_activations = backend.rounds_products()});
  const GradientSink sink = pass.gradients();
  Parameters& gradients = sink.into;
  const int64_t tokens = shape.batch * shape.seq;
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  Rng rng(1);
  for (int32_t& id : ids) {
    id = static_cast<int32_t>(rng.below(static_cast<uint64_t>(shape.vocab)));
  }
  const TrainingBatch batch = {shape.batch, shape.seq, ids, ids, {}};
  const auto scale = 1.0f / static_cast<float>(batch.count_labels());

  std::vector<double> passes, updates, cpu;
  double loss = 0;
  for (int step = 1; step <= steps + 1; ++step) {  // the first touches the memory
    const auto start = std::chrono::steady_clock::now();
    const double cpu_start = cpu_seconds();
    const LossSum sum = pass.forward_backward(parameters.weights(), sink, batch, scale);
    const double pass_s = seconds_since(start);
    const double norm = std::sqrt(backend.squared_norm(gradients.all()));
    backend.adamw(parameters.all(), gradients.all(), m.all(), v.all(),
                  {.learning_rate = 3e-4,
                   .weight_decay = 0.1,
                   .gradient_scale = std::min(1.0, 1 / (norm + 1e-6)),
                   .step = step});
    const double total_s = seconds_since(start);
    loss = sum.loss / static_cast<double>(sum.count);
    if (step == 1) continue;
    passes.push_back(pass_s);
    updates.push_back(total_s - pass_s);
    cpu.push_back(cpu_seconds() - cpu_start);
  }

  const auto count = count_parameters(config);
  const double flops_per_token = 6.0 * static_cast<double>(count.total - count.embedding) +
                                 6.0 * static_cast<double>(shape.layers * shape.seq * shape.hidden);
  const double step_s = bench::median(passes) + bench::median(updates);
  const double rate = static_cast<double>(tokens) / step_s;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  fmt::print(
      "{}: {} threads, {} {}: {:.0f} tokens/s, {:.1f} GFLOP/s ({:.0f} % of the measured peak "
      "{:.0f}), "
      "pass {:.3f} s, optimizer {:.3f} s, CPU {:.3f} s, peak memory {:.2f} GB, loss {:.3f}\n",
      shape.name, threads, cpu::name(backend.isa()), precision == Precision::F32 ? "fp32" : "bf16",
      rate, rate * flops_per_token * 1e-9, 100 * rate * flops_per_token / peak, peak * 1e-9,
      bench::median(passes), bench::median(updates), bench::median(cpu),
      static_cast<double>(usage.ru_maxrss) * 1024e-9, loss);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string wanted = argc > 1 ? argv[1] : "small";
  const bool bf16 = argc > 2 && std::string_view(argv[2]) == "bf16";
  const int steps = argc > 3 ? std::atoi(argv[3]) : 5;
  const int threads = argc > 4 ? std::atoi(argv[4]) : ThreadPool::available_cores();
  for (const BenchShape& shape : kShapes) {
    if (shape.name != wanted) continue;
    run(shape, bf16 ? Precision::BF16 : Precision::F32, std::max(steps, 1), threads);
  }
}
