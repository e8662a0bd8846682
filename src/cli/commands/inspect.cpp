// quern inspect: what a checkpoint is, and what it would need.
#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/model_store.h"
#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"
#include "formats/gguf.h"
#include "formats/gptq.h"
#include "model/kv_cache.h"
#include "model/tensors.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::string model;
  bool json = false, tensors = false;
};

std::string_view group_of(const TensorSpec& spec) {
  switch (spec.part) {
    case Part::Embedding:
      return "embedding";
    case Part::Positions:
      return "positions";
    case Part::Qkv:
    case Part::Q:
    case Part::K:
    case Part::V:
    case Part::AttnOut:
      return "attention";
    case Part::Up:
    case Part::Gate:
    case Part::GateUp:
    case Part::Down:
      return "feed-forward";
    case Part::Router:
    case Part::SharedRouter:
    case Part::ExpertUp:
    case Part::ExpertGate:
    case Part::ExpertDown:
      return "experts";
    case Part::LmHead:
      return "lm_head";
    default:
      return "norms";
  }
}

std::map<std::string, int64_t> parameters_by_part(const Config& config) {
  std::map<std::string, int64_t> parts;
  for (const TensorSpec& spec : tensor_specs(config)) {
    parts[std::string(group_of(spec))] += spec.shape.count();
  }
  return parts;
}

// Bytes of the weights at a number of bits for the blocks' matrices; the rest stays in 16.
int64_t weight_bytes(const Config& config, int bits) {
  int64_t bytes = 0;
  for (const TensorSpec& spec : tensor_specs(config)) {
    const int64_t width = spec.role == Role::Matrix || bits > 16 ? bits : 16;
    bytes += spec.shape.count() * width / 8;
  }
  return bytes;
}

// The matrices that have a bias, in words.
std::string biases_of(const Config& c) {
  std::string out;
  const std::pair<bool, const char*> kinds[] = {{c.qkv_bias, "q, k, v"},
                                                {c.out_bias, "attention output"},
                                                {c.mlp_bias, "feed-forward"},
                                                {c.norm_bias, "norms"},
                                                {c.head_bias, "lm_head"}};
  for (const auto& [there, name] : kinds) {
    if (there) out += (out.empty() ? "" : ", ") + std::string(name);
  }
  return out.empty() ? "none" : out;
}

void inspect(const Arguments& args) {
  fs::path folder = args.model;
  const auto names = preset_names();
  const bool is_preset =
      !fs::exists(folder) && std::find(names.begin(), names.end(), args.model) != names.end();
  if (!is_preset) folder = checkpoint_of(resolve_model(args.model));
  const Config c = is_preset ? preset(args.model) : load_config(folder);
  const ParameterCount count = count_parameters(c);
  const auto gptq = is_preset || is_gguf(folder) ? std::nullopt : read_gptq_config(folder);
  const std::pair<const char*, int> precisions[] = {
      {"fp32", 32}, {"bf16", 16}, {"int8", 8}, {"int4", 4}};
  const std::pair<const char*, DType> caches[] = {
      {"fp32", DType::F32}, {"fp16", DType::F16}, {"int8", DType::U8}};
  std::vector<int64_t> contexts = {2048, 8192, 32768};
  std::erase_if(contexts, [&](int64_t n) { return n > c.max_context; });
  if (contexts.empty() || contexts.back() != c.max_context) contexts.push_back(c.max_context);

  if (args.json) {
    nlohmann::ordered_json out = {{"model", args.model},
                                  {"config", to_json(c)},
                                  {"parameters",
                                   {{"total", count.total},
                                    {"embedding", count.embedding},
                                    {"matmul", count.matmul},
                                    {"by_part", parameters_by_part(c)}}}};
    for (const auto& [label, bits] : precisions) out["weight_bytes"][label] = weight_bytes(c, bits);
    for (const auto& [label, type] : caches) {
      out["kv_bytes_per_token"][label] = KvCache::bytes_per_token(c, type);
    }
    if (gptq) out["gptq"] = {{"bits", gptq->bits}, {"group_size", gptq->group_size}};
    if (args.tensors) {
      for (const TensorSpec& spec : tensor_specs(c)) {
        out["tensors"].push_back(
            {{"name", spec.name},
             {"shape", std::vector<int64_t>(spec.shape.begin(), spec.shape.end())}});
      }
    }
    print(dump(out, 2) + "\n");
    return;
  }
  const auto row = [](std::string_view label, const std::string& value) {
    print(fmt::format("{:<16} {}\n", label, value));
  };
  row("model", folder.string() + (is_preset ? " (preset)" : ""));
  row("family",
      std::string(name(c.family)) + (gptq ? fmt::format(", GPTQ int{}", gptq->bits) : ""));
  row("parameters",
      fmt::format("{} ({})", human_count(static_cast<uint64_t>(count.total)), count.total));
  for (const auto& [part, size] : parameters_by_part(c)) {
    row("  " + part, fmt::format("{:<10} {:4.1f} %", human_count(static_cast<uint64_t>(size)),
                                 100.0 * static_cast<double>(size) / double(count.total)));
  }
  row("layers", std::to_string(c.layers));
  row("hidden", fmt::format("{}, feed-forward {}", c.hidden, c.ffn));
  row("heads", fmt::format("{} of {}{}{}", c.heads, c.head_dim,
                           c.kv_heads != c.heads ? fmt::format(", {} key/value", c.kv_heads) : "",
                           c.qk_norm != QkNorm::None ? ", normalized" : ""));
  row("vocabulary", fmt::format("{}{}", c.vocab, c.tied ? ", tied" : ""));
  row("biases", biases_of(c));
  row("rotary", fmt::format("base {:g}, {} of {} dims{}", c.rope_theta, c.rotary_dim, c.head_dim,
                            c.rope_scaling.type == RopeScaling::Type::None
                                ? ""
                                : fmt::format(", scaled by {:g}", c.rope_scaling.factor)));
  row("context", fmt::format("{} trained, {} at most{}{}", c.trained_context, c.max_context,
                             c.dynamic_ntk ? ", dynamic NTK" : "", c.logn ? ", LogN" : ""));
  print("\nmemory: weights + KV cache of one sequence\n");
  print(fmt::format("{:<24}", "context"));
  for (const int64_t n : contexts) print(fmt::format("{:>12}", n));
  print("\n");
  for (const auto& [label, bits] : precisions) {
    for (const auto& [cache, type] : caches) {
      print(fmt::format("{:<24}", fmt::format("{} + {} cache", label, cache)));
      for (const int64_t n : contexts) {
        const uint64_t bytes = static_cast<uint64_t>(weight_bytes(c, bits)) +
                               KvCache::bytes_per_token(c, type) * static_cast<uint64_t>(n);
        print(fmt::format("{:>12}", human_bytes(bytes)));
      }
      print("\n");
    }
  }
  if (!args.tensors) return;
  print("\n");
  for (const TensorSpec& spec : tensor_specs(c)) {
    print(fmt::format("{:<56} {}\n", spec.name, to_string(spec.shape)));
  }
}

}  // namespace

void add_inspect(CLI::App& root) {
  Command command(root, "inspect", "Describe a checkpoint: architecture, parameters, memory",
                  {{"inspect Qwen-7B", "what the checkpoint in a folder is"},
                   {"inspect runs/mini", "the latest checkpoint of a training run"},
                   {"inspect qwen-7b --json", "a preset, as JSON"}});
  auto args = std::make_shared<Arguments>();
  command
      .positional("model", args->model,
                  "Checkpoint folder, training run, GGUF file, or preset name")
      .required();
  command.flag("--tensors", args->tensors, "List every tensor");
  command.flag("--json", args->json, "Print one JSON object");
  command.on_run([args] { inspect(*args); });
}

}  // namespace quern::cli
