// Times this machine's training pass, for plans.
#include <algorithm>
#include <chrono>
#include <numeric>

#include "compute/cpu/machine.h"
#include "model/backward.h"
#include "train/plan.h"

namespace quern {

Accelerator measured_machine(Backend& backend, const Config& config, int64_t seq, double peak,
                             double bandwidth, double memory) {
  constexpr int64_t kLayers = 2, kVocab = 8192, kTokens = 512;
  Config small = config;
  small.layers = std::min(config.layers, kLayers);
  small.vocab = std::min(config.vocab, kVocab);
  small.output_vocab = std::min(config.output_vocab, kVocab);
  const auto first_layers = [&](auto& by_layer) {
    if (!by_layer.empty()) by_layer.resize(static_cast<size_t>(small.layers));
  };
  first_layers(small.windows);
  first_layers(small.rope_layers);
  first_layers(small.experts.dense);
  const int64_t length = std::min(seq, kTokens);
  const std::vector<TensorSpec> specs = tensor_specs(small);
  Parameters parameters(backend, small, specs);
  parameters.initialize(small, /*seed=*/0);
  TrainingPass pass(backend, small,
                    {.seq = length,
                     .own_gradients = true,
                     .trained = specs,
                     .rounded_activations = backend.rounds_products()});
  std::vector<int32_t> ids(static_cast<size_t>(length));
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int32_t>(i * 2654435761u % static_cast<size_t>(small.output_vocab));
  }
  std::vector<double> seconds;
  for (int run = 0; run < 6; ++run) {
    const auto begin = std::chrono::steady_clock::now();
    pass.forward_backward(parameters.weights(), pass.gradients(), {1, length, ids, ids, {}}, 1);
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  seconds.erase(seconds.begin());  // the first touches all memory
  std::ranges::nth_element(seconds, seconds.begin() + 2);
  const PlanFlops flops = plan_flops(small, length);
  Accelerator machine = accelerator("cpu");
  machine.name = "measured";
  machine.memory = memory;
  machine.peak = peak;
  machine.bandwidth = bandwidth;
  machine.gemm_share = static_cast<double>(length) * flops.causal() / seconds[2] / peak;
  machine.attention_share = machine.gemm_share;
  machine.basis = "this machine: a training pass over two layers, median of 5; network assumed";
  return machine;
}

}  // namespace quern
