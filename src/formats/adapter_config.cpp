#include "formats/adapter_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/json.h"
#include "core/ordered_json.h"
#include "formats/unread_keys.h"

namespace quern {
namespace {

// Read, or without effect once the adapter is trained. Which modules and layers it changes, its
// tensors say.
constexpr std::string_view kKnown[] = {"alora_invocation_tokens",
                                       "alpha_pattern",
                                       "arrow_config",
                                       "auto_mapping",
                                       "base_model_name_or_path",
                                       "bias",
                                       "corda_config",
                                       "ensure_weight_tying",
                                       "eva_config",
                                       "exclude_modules",
                                       "fan_in_fan_out",
                                       "inference_mode",
                                       "init_lora_weights",
                                       "layer_replication",
                                       "layers_pattern",
                                       "layers_to_transform",
                                       "loftq_config",
                                       "lora_alpha",
                                       "lora_bias",
                                       "lora_dropout",
                                       "lora_ga_config",
                                       "megatron_config",
                                       "megatron_core",
                                       "modules_to_save",
                                       "peft_type",
                                       "peft_version",
                                       "qalora_group_size",
                                       "r",
                                       "rank_pattern",
                                       "revision",
                                       "target_modules",
                                       "target_parameters",
                                       "task_type",
                                       "trainable_token_indices",
                                       "use_bdlora",
                                       "use_dora",
                                       "use_qalora",
                                       "use_rslora"};

std::vector<std::string> strings(const Json& json, std::string_view key) {
  std::vector<std::string> out;
  const auto value = json.find(key);
  if (!value) return out;
  if (value->is_string()) return {value->string()};
  for (const Json& item : value->items()) out.push_back(item.string());
  return out;
}

// PEFT's rule: re.match(rf"(.*\\.)?({key})$", module).
NamePattern ending(std::string_view key, const std::string& where) {
  return NamePattern(fmt::format("(.*\\.)?({})", key), where);
}

// A name, or the end of one behind a dot.
bool ends_with_module(std::string_view name, std::string_view module) {
  if (!name.ends_with(module)) return false;
  return name.size() == module.size() || name[name.size() - module.size() - 1] == '.';
}

// A member that is a map from patterns to numbers, in the order of the file.
template <class T, class Read>
std::vector<std::pair<NamePattern, T>> patterns(const Json& json, const OrderedJson& ordered,
                                                const char* key, const Read& read) {
  std::vector<std::pair<NamePattern, T>> out;
  const auto map = json.find(key);
  if (!map) return out;
  map->members();  // throws where it is no object
  for (const auto& [pattern, value] : ordered.find(key)->members) {
    out.emplace_back(ending(pattern, map->where()), read(map->at(pattern)));
  }
  return out;
}

template <class T>
T first_match(const std::vector<std::pair<NamePattern, T>>& patterns, std::string_view module,
              T fallback) {
  for (const auto& [pattern, value] : patterns) {
    if (pattern.matches(module)) return value;
  }
  return fallback;
}

}  // namespace

int64_t AdapterConfig::rank_of(std::string_view module) const {
  return first_match(rank_pattern, module, rank);
}

double AdapterConfig::scale(std::string_view module) const {
  const auto r = static_cast<double>(rank_of(module));
  return first_match(alpha_pattern, module, alpha) / (rank_stabilized ? std::sqrt(r) : r);
}

bool AdapterConfig::targets(std::string_view module) const {
  if (all_linear) return module != "lm_head";
  if (!target_patterns.empty()) return target_patterns[0].matches(module);
  if (target_modules.empty()) return true;
  return std::ranges::any_of(
      target_modules, [&](const std::string& name) { return ends_with_module(module, name); });
}

AdapterConfig read_adapter_config(const fs::path& folder) {
  const fs::path path = folder / "adapter_config.json";
  if (!fs::exists(path)) {
    throw_bad_input(folder.string() + ": has no adapter_config.json",
                    "name the folder of a LoRA adapter in PEFT's layout");
  }
  const std::string text = read_file(path, uint64_t{16} << 20);
  const Json json = Json::parse(text, path.string());
  if (const std::string type = json.string_or("peft_type", "LORA"); type != "LORA") {
    json.at("peft_type").fail(fmt::format("is '{}', expected LORA", printable(type, 40)));
  }
  const auto refuse = [&](const char* field, std::string_view what) {
    throw Error(Kind::Unsupported,
                fmt::format("{} {}, which is not supported", json.at(field).where(), what));
  };
  if (json.boolean_or("use_dora", false)) refuse("use_dora", "is true: DoRA");
  for (const char* flag : {"fan_in_fan_out", "use_qalora", "use_bdlora", "lora_bias"}) {
    if (json.boolean_or(flag, false)) refuse(flag, "is true");
  }
  for (const char* field : {"layer_replication", "megatron_config", "trainable_token_indices",
                            "target_parameters", "alora_invocation_tokens", "arrow_config"}) {
    if (const auto value = json.find(field); value && !is_off(*value)) refuse(field, "is set");
  }
  // Other initializations than these take a part out of the base weights.
  if (const auto init = json.find("init_lora_weights"); init && init->is_string()) {
    const std::string& name = init->string();
    if (name != "gaussian" && name != "orthogonal" && name != "eva") {
      refuse("init_lora_weights",
             fmt::format("is '{}': an update of other base weights", printable(name, 40)));
    }
  }
  if (const std::string bias = json.string_or("bias", "none"); bias != "none") {
    json.at("bias").fail(fmt::format("is '{}', expected none", printable(bias, 40)));
  }
  AdapterConfig config;
  config.rank = json.at("r").integer(1, 1 << 16);
  config.alpha = json.at("lora_alpha").number(-1e9, 1e9);
  config.rank_stabilized = json.boolean_or("use_rslora", false);
  if (const auto target = json.find("target_modules"); target && target->is_string()) {
    if (target->string() == "all-linear") {
      config.all_linear = true;
    } else {
      config.target_patterns.emplace_back(target->string(), target->where());
    }
  } else {
    config.target_modules = strings(json, "target_modules");
  }
  config.modules_to_save = strings(json, "modules_to_save");
  const OrderedJson ordered = OrderedJson::parse(text, path.string());
  config.rank_pattern = patterns<int64_t>(
      json, ordered, "rank_pattern", [](const Json& value) { return value.integer(1, 1 << 16); });
  config.alpha_pattern = patterns<double>(
      json, ordered, "alpha_pattern", [](const Json& value) { return value.number(-1e9, 1e9); });
  std::vector<std::string> unread;
  for (const auto& [key, value] : json.members()) {
    if (is_off(value) || std::ranges::find(kKnown, key) != std::end(kKnown)) continue;
    unread.push_back(printable(key, 60));
  }
  warn_of_unread_keys(json.where(), unread);
  return config;
}

}  // namespace quern
