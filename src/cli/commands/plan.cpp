// quern plan: how a training run fits machines, before any is rented.
#include "train/plan.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/model_store.h"
#include "compute/cpu/cpu_training_backend.h"
#include "compute/cpu/machine.h"
#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"
#include "model/tensors.h"

namespace quern::cli {
namespace {

using nlohmann::ordered_json;

struct Arguments {
  std::string model, gpu = "h200", gradients = "bf16", observed;
  std::vector<std::string> layout;
  int64_t gpus = 1, seq = 0, batch = 0, node_gpus = 0, show = 5;
  double gemm = 0, attention = 0, memory_gb = 0, nic_gbps = 0, tokens = 0;
  bool json = false;
};

bool is_preset(const std::string& name) {
  const auto names = preset_names();
  return std::ranges::find(names, name) != names.end();
}

Config config_of(const std::string& model) {
  if (is_preset(model)) return preset(model);
  if (model.ends_with(".json")) return parse_config(Json::parse_file(model));
  const std::string near = nearest(model, preset_names());
  if (!fs::exists(model) && !near.empty()) {
    throw Error(Kind::BadInput, printable(model, 80) + ": there is no such model or preset",
                "did you mean " + near + "?");
  }
  return load_config(resolve_model(model));
}

Accelerator machine_of(const Arguments& args, const Config& config, int64_t seq) {
  Accelerator machine;
  if (args.gpu == "measured") {
    ThreadPool pool(globals().threads);
    CpuTrainingBackend backend(pool);
    const cpu::Isa isa = cpu::chosen_isa();
    machine = measured_machine(backend, config, seq, cpu::measured_fma_peak(pool, isa),
                               cpu::measured_read_bandwidth(pool, isa),
                               static_cast<double>(available_memory()));
  } else {
    machine = accelerator(args.gpu);
  }
  if (args.gemm > 0) machine.gemm_share = args.gemm;
  if (args.attention > 0) machine.attention_share = args.attention;
  if (args.memory_gb > 0) machine.memory = args.memory_gb * 1e9;
  if (args.node_gpus > 0) machine.per_node = args.node_gpus;
  if (args.nic_gbps > 0) machine.bus_across = 0.9 * args.nic_gbps * 1e9 / 8;
  return machine;
}

// "8=12.91": a step took 12.91 s on 8 GPUs, each with as many sequences as in this job.
void fit_to_observed(const std::string& observed, const PlanJob& job, Accelerator& machine) {
  const size_t equals = observed.find('=');
  char* end = nullptr;
  PlanJob other = job;
  other.gpus = std::strtoll(observed.c_str(), &end, 10);
  const bool count = equals != observed.npos && end == observed.c_str() + equals && other.gpus > 0;
  const double seconds = count ? std::strtod(observed.c_str() + equals + 1, &end) : 0;
  if (!count || *end != '\0' || !(seconds > 0) || seconds > 1e9) {
    throw Error(Kind::Misused, "--observed: " + printable(observed, 60),
                "write GPUS=SECONDS, as 8=12.91");
  }
  if (job.batch % job.gpus != 0) {
    throw Error(Kind::Misused,
                fmt::format("--observed: {} GPUs don't divide a batch of {}", job.gpus, job.batch));
  }
  other.batch = job.batch / job.gpus * other.gpus;
  machine.gemm_share = fitted_gemm_share(other, machine, seconds);
  machine.basis = fmt::format("products fitted to {} s a step on {} GPUs", seconds, other.gpus);
}

ordered_json layout_json(const Layout& layout) {
  return {{"data", layout.data},
          {"tensor", layout.tensor},
          {"pipeline", layout.pipeline},
          {"context", layout.context},
          {"zero", layout.zero},
          {"micro_batch", layout.micro_batch},
          {"micro_steps", layout.micro_steps},
          {"recompute", name(layout.recompute)}};
}

ordered_json plan_json(const Plan& plan, const Accelerator& machine, double tokens) {
  const PlanMemory& m = plan.memory;
  ordered_json out = {{"fits", plan.fits},
                      {"memory_gb",
                       {{"weights", m.weights / 1e9},
                        {"gradients", m.gradients / 1e9},
                        {"optimizer", m.optimizer / 1e9},
                        {"activations", m.activations / 1e9},
                        {"logits", m.logits / 1e9},
                        {"reserve", m.reserve / 1e9},
                        {"total", m.total() / 1e9},
                        {"available", machine.memory / 1e9}}},
                      {"layout", layout_json(plan.layout)},
                      {"communication_gb", plan.communication / 1e9},
                      {"step_seconds", plan.step_seconds},
                      {"tokens_per_s", plan.tokens_per_second},
                      {"mfu", plan.mfu}};
  out["days_for_tokens"] =
      tokens > 0 ? ordered_json(tokens / plan.tokens_per_second / 86400) : ordered_json();
  std::vector<std::string> limits = plan.limits;
  if (!plan.fits) {
    limits.insert(limits.begin(),
                  fmt::format("takes {:.1f} GB of {:.1f}", m.total() / 1e9, machine.memory / 1e9));
  }
  out["limits"] = limits;
  return out;
}

// "7.72 billion", "1.3 million".
std::string in_words(double count) {
  return count >= 1e9 ? fmt::format("{:.2f} billion", count / 1e9)
                      : fmt::format("{:.1f} million", count / 1e6);
}

std::string sharing(const Layout& layout) {
  std::string text = fmt::format("data {}", layout.data);
  if (layout.tensor > 1) text += fmt::format(", tensor {}", layout.tensor);
  if (layout.pipeline > 1) text += fmt::format(", pipeline {}", layout.pipeline);
  if (layout.context > 1) text += fmt::format(", context {}", layout.context);
  if (layout.zero > 0) text += fmt::format(", ZeRO-{}", layout.zero);
  return text;
}

std::string batch_text(const Layout& layout) {
  return fmt::format("{} x {}", layout.micro_batch, layout.micro_steps);
}

void print_text(const PlanJob& job, const Accelerator& machine, const std::vector<Plan>& plans,
                const Arguments& args) {
  const auto row = [](std::string_view label, const std::string& value) {
    print(fmt::format("{:<14} {}\n", label, value));
  };
  const ParameterCount count = count_parameters(job.config);
  const PlanFlops flops = plan_flops(job.config, job.seq);
  const Plan& best = plans.front();
  const PlanMemory& m = best.memory;
  std::string size = in_words(double(count.total)) + " parameters";
  if (count.active != count.total) {
    size += fmt::format(", {} active", in_words(double(count.active)));
  }
  row("model",
      size + fmt::format(", {:.3g} GFLOP a token at {} positions", flops.causal() / 1e9, job.seq));
  row("machine", fmt::format("{} x {}, {:.0f} GB each, peak {:.3g} TFLOP/s", job.gpus, machine.name,
                             machine.memory / 1e9, machine.peak / 1e12));
  row("figures", fmt::format("{} (products {:.0f} %, attention {:.0f} %)", machine.basis,
                             100 * machine.gemm_share, 100 * machine.attention_share));
  row("layout",
      sharing(best.layout) + fmt::format(", {} sequences a pass x {} passes, recompute {}",
                                         best.layout.micro_batch, best.layout.micro_steps,
                                         name(best.layout.recompute)));
  const auto bytes = [](double value) { return human_bytes(static_cast<uint64_t>(value)); };
  row("memory",
      fmt::format("{} of {}: weights {}, gradients {}, optimizer {}, activations {}, logits {}, "
                  "reserve {}{}",
                  bytes(m.total()), bytes(machine.memory), bytes(m.weights), bytes(m.gradients),
                  bytes(m.optimizer), bytes(m.activations), bytes(m.logits), bytes(m.reserve),
                  best.fits ? "" : "; does not fit"));
  row("step",
      fmt::format("{:.3g} s, {:.0f} tokens/s, MFU {:.1f} %, {} sent by each", best.step_seconds,
                  best.tokens_per_second, 100 * best.mfu, bytes(best.communication)));
  if (args.tokens > 0) {
    row("days", fmt::format("{:.1f} for {:.3g} tokens",
                            args.tokens / best.tokens_per_second / 86400, args.tokens));
  }
  for (const std::string& limit : best.limits) row("note", limit);
  if (plans.size() < 2 || args.show < 2) return;
  print(fmt::format("\n{:<36} {:>10} {:>9} {:>10} {:>8} {:>7}\n", "others", "batch", "recompute",
                    "memory", "step s", "MFU %"));
  for (size_t i = 1; i < plans.size() && i < static_cast<size_t>(args.show); ++i) {
    const Plan& plan = plans[i];
    print(fmt::format("{:<36} {:>10} {:>9} {:>10} {:>8.3g} {:>7}\n", sharing(plan.layout),
                      batch_text(plan.layout), name(plan.layout.recompute),
                      bytes(plan.memory.total()), plan.step_seconds,
                      plan.fits ? fmt::format("{:.1f}", 100 * plan.mfu) : "no fit"));
  }
}

// The fastest plan of each way to share the work out.
std::vector<Plan> one_of_each_sharing(const std::vector<Plan>& plans) {
  std::vector<Plan> kept;
  for (const Plan& plan : plans) {
    const auto same = [&](const Plan& other) {
      return sharing(other.layout) == sharing(plan.layout);
    };
    if (std::ranges::none_of(kept, same)) kept.push_back(plan);
  }
  return kept;
}

void plan(const Arguments& args) {
  PlanJob job;
  job.config = config_of(args.model);
  job.gpus = args.gpus;
  job.seq = args.seq > 0 ? args.seq : job.config.trained_context;
  job.batch = args.batch > 0 ? args.batch : args.gpus;
  job.fp32_gradients = args.gradients == "fp32";
  Accelerator machine = machine_of(args, job.config, job.seq);
  if (!args.observed.empty()) fit_to_observed(args.observed, job, machine);
  const std::vector<Plan> plans =
      args.layout.empty()
          ? one_of_each_sharing(plan_layouts(job, machine))
          : std::vector<Plan>{plan_layout(job, machine, parse_layout(args.layout, job))};
  if (!args.json) {
    print_text(job, machine, plans, args);
    return;
  }
  const ParameterCount count = count_parameters(job.config);
  const PlanFlops flops = plan_flops(job.config, job.seq);
  ordered_json out = plan_json(plans.front(), machine, args.tokens);
  out["mfu_full_attention"] = plans.front().mfu * flops.full() / flops.causal();
  out["model"] = {{"parameters", count.total},
                  {"matmul_parameters", count.matmul},
                  {"active_parameters", count.active},
                  {"flops_per_token", flops.causal()},
                  {"flops_per_token_full_attention", flops.full()},
                  {"flops_per_sequence", flops.causal() * double(job.seq)},
                  {"flops_per_sequence_full_attention", flops.full() * double(job.seq)}};
  out["machine"] = {{"name", machine.name},
                    {"count", job.gpus},
                    {"peak_flop_per_s", machine.peak},
                    {"gemm_share", machine.gemm_share},
                    {"attention_share", machine.attention_share},
                    {"bytes_per_s", machine.bandwidth},
                    {"bus_inside_bytes_per_s", machine.bus_inside},
                    {"bus_across_bytes_per_s", machine.bus_across},
                    {"basis", machine.basis}};
  out["others"] = ordered_json::array();
  for (size_t i = 1; i < plans.size() && i < static_cast<size_t>(args.show); ++i) {
    out["others"].push_back(plan_json(plans[i], machine, args.tokens));
  }
  print(dump(out, 2) + "\n");
}

}  // namespace

void add_plan(CLI::App& root) {
  Command command(
      root, "plan", "Plan a training run: memory, layout, time and traffic on N machines",
      {{"plan --model qwen-7b --gpus 64 --seq 2048 --batch 2048 --tokens 2.2e12",
        "how long the memo's pretraining takes on 64 GPUs"},
       {"plan --model qwen-7b --gpus 8 --batch 64 --layout data=8,zero=1,micro_batch=2",
        "one layout"},
       {"plan --model tiny --gpu measured --batch 8", "on this machine, which is timed first"}});
  auto args = std::make_shared<Arguments>();
  command.option("--model", args->model, "Checkpoint, GGUF file, config.json or name of a preset")
      .required()
      .usual();
  command.option("--gpus", args->gpus, "How many").range(int64_t{1}, int64_t{1} << 17).usual();
  command.option("--gpu", args->gpu, "What computes; measured: this machine's CPU, timed now")
      .one_of({"h200", "h100", "cpu", "measured"})
      .usual();
  command.option("--seq", args->seq, "Positions of a sequence", "the model's trained length")
      .range(int64_t{1}, int64_t{1} << 24)
      .usual();
  command.option("--batch", args->batch, "Sequences of a step, over all", "one each")
      .range(int64_t{1}, int64_t{1} << 24)
      .usual();
  command.option("--tokens", args->tokens, "Tokens to train on, for the days", "none")
      .range(1.0, 1e16)
      .usual();
  command
      .option("--layout", args->layout,
              "This layout only: data, tensor, pipeline, context, zero, micro_batch, recompute")
      .value("KEY=N,...")
      .separated_by(',');
  command.option("--gradients", args->gradients, "Type of gradients on GPUs")
      .one_of({"bf16", "fp32"});
  command
      .option("--observed", args->observed,
              "Fit the products' speed to a step that was seen, with as many sequences for each")
      .value("GPUS=SECONDS");
  command
      .option("--gemm-share", args->gemm, "Share of the peak that matrix products reach",
              "the machine's")
      .range(0.001, 1.0);
  command
      .option("--attention-share", args->attention, "Share of the peak that attention reaches",
              "the machine's")
      .range(0.001, 1.0);
  command.option("--memory-gb", args->memory_gb, "Memory of each", "the machine's")
      .range(0.001, 1e6);
  command.option("--node-gpus", args->node_gpus, "How many share a node", "the machine's")
      .range(int64_t{1}, int64_t{1024});
  command
      .option("--nic-gbps", args->nic_gbps, "Gbit/s of all network cards of a node",
              "the machine's")
      .range(0.001, 1e6);
  command.option("--show", args->show, "Layouts to show").range(int64_t{1}, int64_t{1000});
  command.flag("--json", args->json, "Print one JSON object");
  command.refuse({"--gemm-share"}, "and --observed exclude each other",
                 [args] { return !args->observed.empty(); });
  command.refuse({"--gradients"}, "goes with GPUs: a CPU's are float32",
                 [args] { return args->gpu == "cpu" || args->gpu == "measured"; });
  command.on_run([args] { plan(*args); });
}

}  // namespace quern::cli
