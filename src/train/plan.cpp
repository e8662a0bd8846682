#include "train/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <tuple>

#include "core/error.h"
#include "model/backward.h"
#include "model/tensors.h"

namespace quern {
namespace {

constexpr double kGiga = 1e9;
constexpr double kHeadTokens = 2048;        // the head's logits are made for so many at a time
constexpr double kBucketBytes = 50e6;       // of gradients that travel together
constexpr double kBucketLatency = 15e-6;    // seconds, times log2 of the ranks
constexpr double kAttentionExtra = 1.17;    // of its FLOPs: the backward pass makes scores again
constexpr double kElementwiseBytes = 150;   // per token, layer and dim, forward and backward
constexpr double kOptimizerBytes = 28;      // per parameter that are read and written in a step
constexpr double kFullRecompute = 4.0 / 3;  // the forward pass a second time

// Of a model, what the formulas read.
struct Sizes {
  double parameters, layers, width, ffn, kv_width, vocab;
  PlanFlops flops;  // of a token
};

// Widths that a token meets: of experts, those that are chosen.
Sizes sizes_of(const PlanJob& job) {
  const Config& config = job.config;
  double ffn = static_cast<double>(config.ffn);
  if (config.experts.count > 0) {
    ffn = static_cast<double>(config.experts.ffn * config.experts.per_token +
                              config.experts.shared_ffn);
  }
  return {static_cast<double>(count_parameters(config).total),
          static_cast<double>(config.layers),
          static_cast<double>(config.hidden),
          ffn,
          static_cast<double>(2 * config.kv_dim()),
          static_cast<double>(config.output_vocab),
          plan_flops(config, job.seq)};
}

double others(int64_t ranks) noexcept {
  return static_cast<double>(ranks - 1) / static_cast<double>(ranks);
}

PlanMemory memory_of(const PlanJob& job, const Accelerator& machine, const Sizes& sizes,
                     const Layout& layout) {
  const auto data = static_cast<double>(layout.data);
  const auto tensor = static_cast<double>(layout.tensor);
  const auto context = static_cast<double>(layout.context);
  const double mine = sizes.parameters / static_cast<double>(layout.tensor * layout.pipeline);
  PlanMemory memory;
  if (machine.cpu) {
    memory.weights = 4 * mine;
    memory.optimizer = 8 * mine;
    // Gradients of a single pass lie among its activations; those of several are added up beside it.
    TrainingOptions options;
    options.own_gradients = true;
    if (layout.micro_steps > 1) memory.gradients = 4 * mine;
    options.batch = layout.micro_batch;
    options.seq = job.seq;
    options.recomputed_layers = layout.recompute == Recompute::Full ? job.config.layers : 0;
    memory.activations = static_cast<double>(TrainingPass::memory_bytes(job.config, options));
  } else {
    // bfloat16 weights; the optimizer holds two moments and the low halves of float32 weights.
    memory.weights = 2 * mine;
    memory.gradients = (job.fp32_gradients ? 4 : 2) * mine;
    memory.optimizer = 10 * mine;
    const double tokens = static_cast<double>(layout.micro_batch * job.seq) / context;
    const double whole = (16 * sizes.width + 6 * sizes.ffn) / tensor;
    const double per_layer = layout.recompute == Recompute::None ? whole
                             : layout.recompute == Recompute::Norms
                                 ? (12 * sizes.width + 4 * sizes.ffn) / tensor
                                 : 2 * sizes.width / tensor;
    const double layers = sizes.layers / static_cast<double>(layout.pipeline);
    const auto alive = static_cast<double>(std::min(layout.micro_steps, layout.pipeline));
    memory.activations = tokens * per_layer * layers * alive;
    if (layout.recompute == Recompute::Full) memory.activations += tokens * whole;
    memory.logits = std::min(kHeadTokens, tokens) * sizes.vocab * 6 / tensor;
    memory.reserve = 2 * kGiga + 0.05 * machine.memory;
  }
  if (layout.zero >= 1) memory.optimizer /= data;
  if (layout.zero >= 2) memory.gradients /= data;
  if (layout.zero >= 3) memory.weights /= data;
  return memory;
}

// Bytes that a GPU sends in a step. `data` may hide behind the last backward pass.
struct Traffic {
  double data = 0, tensor = 0, pipeline = 0, context = 0;
};

Traffic traffic_of(const PlanJob& job, const Accelerator& machine, const Sizes& sizes,
                   const Layout& layout) {
  const double mine = sizes.parameters / static_cast<double>(layout.tensor * layout.pipeline);
  const double gradient = job.fp32_gradients || machine.cpu ? 4 : 2;
  const double weight = machine.cpu ? 4 : 2;
  const auto steps = static_cast<double>(layout.micro_steps);
  const double k = others(layout.data);
  Traffic traffic;
  switch (layout.zero) {
    case 0:
      traffic.data = 2 * k * gradient * mine;
      break;
    case 1:
    case 2:
      traffic.data = 4 * mine * k + weight * mine * k;
      break;
    default:  // weights are gathered for each pass, forward and backward
      traffic.data = (2 * weight * steps + 2) * mine * k;
  }
  const double tokens = static_cast<double>(layout.micro_batch * job.seq);
  const double layers = sizes.layers / static_cast<double>(layout.pipeline);
  traffic.tensor = steps * layers * 4 * 2 * others(layout.tensor) * 2 * tokens * sizes.width;
  if (layout.pipeline > 1) traffic.pipeline = steps * 2 * 2 * tokens * sizes.width;
  traffic.context = steps * layers * 3 * 4 * others(layout.context) * tokens * sizes.kv_width / 2;
  return traffic;
}

double bus(const Accelerator& machine, int64_t ranks) noexcept {
  return ranks <= machine.per_node ? machine.bus_inside
                                   : std::min(machine.bus_inside, machine.bus_across);
}

// What Quern can't run: layouts are planned all the same.
std::vector<std::string> limits_of(const Accelerator& machine, const Layout& layout) {
  std::vector<std::string> limits;
  if (!machine.cpu) limits.push_back("Quern trains on CPUs: this GPU is planned for, not run");
  if (layout.tensor > 1) limits.push_back("tensor parallelism is planned, not run");
  if (layout.pipeline > 1) limits.push_back("pipeline parallelism is planned, not run");
  if (layout.context > 1) limits.push_back("context parallelism is planned, not run");
  if (layout.zero > 1) limits.push_back(fmt::format("ZeRO-{} is planned, not run", layout.zero));
  return limits;
}

std::vector<int64_t> divisors(int64_t n) {
  std::vector<int64_t> all;
  for (int64_t d = 1; d * d <= n; ++d) {
    if (n % d != 0) continue;
    all.push_back(d);
    if (d != n / d) all.push_back(n / d);
  }
  std::ranges::sort(all);
  return all;
}

// Why a model can't be split so; empty if it can.
std::string why_not(const PlanJob& job, const Layout& layout) {
  const Config& config = job.config;
  if (layout.data * layout.tensor * layout.pipeline * layout.context != job.gpus) {
    return fmt::format("data x tensor x pipeline x context is {}, the job has {} GPUs",
                       layout.data * layout.tensor * layout.pipeline * layout.context, job.gpus);
  }
  if (config.heads % layout.tensor != 0) {
    return fmt::format("tensor={} does not divide the {} heads", layout.tensor, config.heads);
  }
  if (config.layers % layout.pipeline != 0) {
    return fmt::format("pipeline={} does not divide the {} layers", layout.pipeline, config.layers);
  }
  if (job.seq % layout.context != 0) {
    return fmt::format("context={} does not divide {} positions", layout.context, job.seq);
  }
  if (job.batch % (layout.data * layout.micro_batch) != 0) {
    return fmt::format("data={} with micro_batch={} does not divide a batch of {} sequences",
                       layout.data, layout.micro_batch, job.batch);
  }
  return {};
}

Plan plan_of(const PlanJob& job, const Accelerator& machine, const Sizes& sizes,
             const Layout& layout) {
  const PlanFlops& flops = sizes.flops;
  Plan plan;
  plan.layout = layout;
  plan.memory = memory_of(job, machine, sizes, layout);
  plan.fits = plan.memory.total() <= machine.memory;
  plan.limits = limits_of(machine, layout);

  const double parts = static_cast<double>(layout.tensor * layout.pipeline * layout.context);
  const double tokens = static_cast<double>(layout.micro_batch * job.seq) / parts;
  const double again = layout.recompute == Recompute::Full ? kFullRecompute : 1;
  const Traffic traffic = traffic_of(job, machine, sizes, layout);
  const auto steps = static_cast<double>(layout.micro_steps);
  const double between = (traffic.tensor / bus(machine, layout.tensor) +
                          traffic.context / bus(machine, layout.tensor * layout.context) +
                          traffic.pipeline / bus(machine, job.gpus)) /
                         steps;
  plan.micro_seconds =
      again * tokens *
          (flops.matmul / (machine.gemm_share * machine.peak) +
           kAttentionExtra * flops.attention / (machine.attention_share * machine.peak)) +
      between;
  // A measured pass has it in its shares.
  if (!machine.cpu) {
    plan.micro_seconds +=
        kElementwiseBytes * sizes.layers * sizes.width * tokens / machine.bandwidth;
  }

  const double mine = sizes.parameters / static_cast<double>(layout.tensor * layout.pipeline);
  double data_seconds = 0;
  if (layout.data > 1) {
    const double buckets = std::ceil(4 * mine / kBucketBytes);
    data_seconds = traffic.data / bus(machine, job.gpus) +
                   buckets * kBucketLatency * std::log2(static_cast<double>(layout.data));
  }
  // ZeRO-3 gathers for every pass and can hide behind each of them; the rest travels with the last.
  const double hidden = 2.0 / 3 * plan.micro_seconds * (layout.zero == 3 ? steps : 1);
  plan.exposed_seconds = std::max(0.0, data_seconds - hidden);
  plan.bubble_seconds = plan.micro_seconds * static_cast<double>(layout.pipeline - 1);
  const double owners = layout.zero >= 1 ? static_cast<double>(layout.data) : 1;
  plan.optimizer_seconds = kOptimizerBytes * mine / owners / machine.bandwidth;
  plan.step_seconds = steps * plan.micro_seconds + plan.bubble_seconds + plan.exposed_seconds +
                      plan.optimizer_seconds;
  plan.communication = traffic.data + traffic.tensor + traffic.pipeline + traffic.context;
  plan.tokens_per_second = static_cast<double>(job.batch * job.seq) / plan.step_seconds;
  plan.mfu =
      plan.tokens_per_second * flops.causal() / (machine.peak * static_cast<double>(job.gpus));
  return plan;
}

}  // namespace

std::string_view name(Recompute recompute) noexcept {
  constexpr std::string_view kNames[] = {"none", "norms", "full"};
  return kNames[static_cast<size_t>(recompute)];
}

std::vector<std::string> accelerator_names() { return {"h200", "h100", "cpu"}; }

Accelerator accelerator(std::string_view name) {
  // Shares: a published step of Llama-3.1-8B on H100s (12.91 s for 128 sequences of 8,192 on 8) fits
  // 0.59 for products where attention has 0.5, as cuDNN 9 reaches.
  const std::string basis =
      "shares fitted to a published step of Llama-3.1-8B on H100s; buses as measured with NCCL";
  if (name == "h200") {
    return {"h200", 141e9, 989e12, 0.59, 0.5, 4.3e12, 370e9, 360e9, 8, false, basis};
  }
  if (name == "h100") {
    return {"h100", 80e9, 989e12, 0.59, 0.5, 3.0e12, 370e9, 360e9, 8, false, basis};
  }
  if (name == "cpu") {
    return {"cpu",
            256e9,
            4e12,
            0.6,
            0.3,
            250e9,
            10e9,
            10e9,
            1,
            true,
            "assumed: 32 cores with AVX-512, eight channels of DDR5, 100 Gbit/s Ethernet"};
  }
  throw Error(Kind::Misused, fmt::format("there is no accelerator called {}", name),
              "h200, h100, cpu or measured");
}

Layout parse_layout(std::span<const std::string> parts, const PlanJob& job) {
  Layout layout;
  for (const std::string_view part : parts) {
    const size_t equals = part.find('=');
    const std::string_view key = part.substr(0, equals);
    const std::string_view value =
        equals == part.npos ? std::string_view() : part.substr(equals + 1);
    if (key == "recompute") {
      layout.recompute = value == "none"    ? Recompute::None
                         : value == "norms" ? Recompute::Norms
                                            : Recompute::Full;
      if (value != name(layout.recompute)) {
        throw Error(Kind::Misused, fmt::format("--layout: recompute={}", printable(value, 40)),
                    "none, norms or full");
      }
      continue;
    }
    int64_t number = -1;
    const auto [end, failure] = std::from_chars(value.data(), value.data() + value.size(), number);
    const bool whole = failure == std::errc() && end == value.data() + value.size();
    int64_t* const place = key == "data"          ? &layout.data
                           : key == "tensor"      ? &layout.tensor
                           : key == "pipeline"    ? &layout.pipeline
                           : key == "context"     ? &layout.context
                           : key == "micro_batch" ? &layout.micro_batch
                                                  : nullptr;
    const bool zero = key == "zero" && whole && number >= 0 && number <= 3;
    if (!zero && (place == nullptr || !whole || number < 1 || number > 1'000'000)) {
      throw Error(Kind::Misused, fmt::format("--layout: {}", printable(part, 60)),
                  "write data=8,tensor=1,pipeline=1,context=1,zero=1,micro_batch=4,recompute=none");
    }
    if (zero) {
      layout.zero = static_cast<int>(number);
    } else {
      *place = number;
    }
  }
  if (const std::string reason = why_not(job, layout); !reason.empty()) {
    throw Error(Kind::Misused, "--layout: " + reason);
  }
  layout.micro_steps = job.batch / (layout.data * layout.micro_batch);
  return layout;
}

PlanFlops plan_flops(const Config& config, int64_t seq) {
  // Each of the two products of attention takes 2 · seq · width, half of it where it is causal;
  // the backward pass twice as much.
  return {6 * static_cast<double>(count_parameters(config).active_matmul),
          6 * static_cast<double>(config.layers) * static_cast<double>(seq) *
              static_cast<double>(config.query_dim())};
}

Plan plan_layout(const PlanJob& job, const Accelerator& machine, const Layout& layout) {
  return plan_of(job, machine, sizes_of(job), layout);
}

std::vector<Plan> plan_layouts(const PlanJob& job, const Accelerator& machine) {
  const Sizes sizes = sizes_of(job);
  std::vector<Plan> plans;
  std::string reason;
  for (const int64_t data : divisors(job.gpus)) {
    for (const int64_t tensor : divisors(job.gpus / data)) {
      if (tensor > machine.per_node) continue;  // it talks in every layer: inside a node only
      for (const int64_t pipeline : divisors(job.gpus / data / tensor)) {
        Layout layout;
        layout.data = data;
        layout.tensor = tensor;
        layout.pipeline = pipeline;
        layout.context = job.gpus / data / tensor / pipeline;
        if (machine.cpu && data != job.gpus) continue;
        for (const int64_t micro_batch : divisors(std::max<int64_t>(1, job.batch / data))) {
          layout.micro_batch = micro_batch;
          if (std::string why = why_not(job, layout); !why.empty()) {
            reason = std::move(why);
            continue;
          }
          if (micro_batch > 64) continue;
          layout.micro_steps = job.batch / (data * micro_batch);
          for (const Recompute recompute : {Recompute::None, Recompute::Norms, Recompute::Full}) {
            if (machine.cpu && recompute == Recompute::Norms) continue;
            layout.recompute = recompute;
            for (int zero = data > 1 ? 1 : 0; zero <= (data > 1 && !machine.cpu ? 3 : data > 1);
                 ++zero) {
              layout.zero = zero;
              plans.push_back(plan_of(job, machine, sizes, layout));
            }
          }
        }
      }
    }
  }
  if (plans.empty()) {
    throw Error(Kind::Misused,
                fmt::format("{} GPUs can't share a batch of {} sequences of this model: {}",
                            job.gpus, job.batch, reason),
                "take a --batch that the GPUs divide");
  }
  // Of equals the simpler: fewer ways of sharing, less memory.
  const auto order = [](const Plan& plan) {
    const Layout& l = plan.layout;
    const double key = plan.fits ? plan.step_seconds : plan.memory.total();
    return std::tuple(!plan.fits, key, l.zero, l.tensor * l.pipeline * l.context,
                      plan.memory.total());
  };
  std::ranges::stable_sort(plans, {}, order);
  return plans;
}

double fitted_gemm_share(const PlanJob& job, const Accelerator& machine, double seconds) {
  double low = 0.01, high = 1;
  const auto step_with = [&](double share) {
    Accelerator other = machine;
    other.gemm_share = share;
    return plan_layouts(job, other).front().step_seconds;
  };
  if (step_with(low) < seconds || step_with(high) > seconds) {
    throw_bad_input(
        fmt::format("--observed: no share of the peak makes a step of {} s on {} GPUs: {:.3g} s at "
                    "1 %, {:.3g} s at 100 %",
                    seconds, job.gpus, step_with(low), step_with(high)));
  }
  for (int i = 0; i < 60; ++i) {
    const double middle = std::sqrt(low * high);
    (step_with(middle) > seconds ? low : high) = middle;
  }
  return std::sqrt(low * high);
}

}  // namespace quern
