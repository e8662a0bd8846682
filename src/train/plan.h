// How a training run fits machines, before any is rented: memory, traffic and time of a step under
// each way to share the work out.
//
// Sources: PaLM's appendix B (FLOPs), Rajbhandari et al. 2020 (ZeRO's bytes and traffic), Shoeybi et
// al. 2019 (tensor parallelism), Narayanan et al. 2021 (the pipeline's bubble), Korthikanti et al.
// 2022 (recomputation). Bytes, seconds and FLOPs are those of one GPU and one step, unless said.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"

namespace quern {

class Backend;

// What computes. A share is what a training step reaches of the peak on paper.
struct Accelerator {
  std::string name;
  double memory = 0;           // bytes
  double peak = 0;             // FLOP/s on paper
  double gemm_share = 0;       // of matrix products
  double attention_share = 0;  // of attention
  double bandwidth = 0;        // bytes/s of its memory
  double bus_inside = 0;       // bytes/s of all-reduce traffic between GPUs of a node
  double bus_across = 0;       // likewise between nodes, all network cards of a node together
  int64_t per_node = 1;
  bool cpu = false;  // Quern's own trainer: float32 parameters, moments and gradients
  std::string basis;
};

// "h200", "h100" or "cpu". Throws Misused for another name.
Accelerator accelerator(std::string_view name);
std::vector<std::string> accelerator_names();
// This machine, by timing the training pass over a model of two of `config`'s layers (median of 5).
Accelerator measured_machine(Backend& backend, const Config& config, int64_t seq, double peak,
                             double bandwidth, double memory);

struct PlanJob {
  Config config;
  int64_t gpus = 1;
  int64_t seq = 0;              // positions of a sequence
  int64_t batch = 1;            // sequences of a step, over all GPUs
  bool fp32_gradients = false;  // else bfloat16 on GPUs
};

enum class Recompute : uint8_t { None, Norms, Full };  // what the backward pass computes again
std::string_view name(Recompute recompute) noexcept;

struct Layout {
  int64_t data = 1, tensor = 1, pipeline = 1, context = 1;  // their product is the GPUs
  int zero = 0;                                             // 0 to 3
  int64_t micro_batch = 1;                                  // sequences of a forward pass
  int64_t micro_steps = 1;                                  // forward passes of a step
  Recompute recompute = Recompute::None;

  bool operator==(const Layout&) const = default;
};

// Reads "data=8", "tensor=2", "zero=1", "micro_batch=4", "recompute=full". What isn't named is 1, 0 or none;
// micro_steps follow from the batch. Throws Misused where the parts don't make up the job.
Layout parse_layout(std::span<const std::string> parts, const PlanJob& job);

struct PlanMemory {  // bytes
  double weights = 0, gradients = 0, optimizer = 0, activations = 0, logits = 0, reserve = 0;

  double total() const noexcept {
    return weights + gradients + optimizer + activations + logits + reserve;
  }
};

struct Plan {
  Layout layout;
  PlanMemory memory;
  bool fits = false;
  double communication = 0;  // bytes that leave a GPU in a step
  double micro_seconds = 0;  // of a forward and backward pass
  double bubble_seconds = 0, exposed_seconds = 0, optimizer_seconds = 0;
  double step_seconds = 0;
  double tokens_per_second = 0;     // of all GPUs
  double mfu = 0;                   // causal attention, without the embedding; of the peak on paper
  std::vector<std::string> limits;  // what stands in the way of running it
};

// FLOPs of one token, forward and backward: 6 P_m and attention over half of `seq` (causal), or over
// all of it, as much of the literature counts.
struct PlanFlops {
  double matmul = 0, attention = 0;

  double causal() const noexcept { return matmul + attention; }
  double full() const noexcept { return matmul + 2 * attention; }
};
PlanFlops plan_flops(const Config& config, int64_t seq);

Plan plan_layout(const PlanJob& job, const Accelerator& machine, const Layout& layout);
// Every layout that shares the job out evenly, the fastest that fits first; those that don't fit
// come last, smallest first. Throws Misused if there is none.
std::vector<Plan> plan_layouts(const PlanJob& job, const Accelerator& machine);

// The share of matrix products with which a step takes `seconds`, as was observed. Throws BadInput
// if no share from 1 to 100 % does.
double fitted_gemm_share(const PlanJob& job, const Accelerator& machine, double seconds);

}  // namespace quern
