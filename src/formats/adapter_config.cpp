#include "formats/adapter_config.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "core/json.h"

namespace quern {
namespace {

std::vector<std::string> strings(const Json& json, std::string_view key) {
  std::vector<std::string> out;
  const auto value = json.find(key);
  if (!value) return out;
  if (value->is_string()) return {value->string()};
  for (const Json& item : value->items()) out.push_back(item.string());
  return out;
}

// A pattern's key is a whole module name or the end of one, at a dot.
bool matches(std::string_view module, std::string_view pattern) {
  if (!module.ends_with(pattern)) return false;
  return module.size() == pattern.size() || module[module.size() - pattern.size() - 1] == '.';
}

}  // namespace

double AdapterConfig::scale(std::string_view module, int64_t module_rank) const {
  double module_alpha = alpha;
  for (const auto& [pattern, value] : alpha_pattern) {
    if (matches(module, pattern)) module_alpha = value;
  }
  const auto r = static_cast<double>(module_rank);
  return module_alpha / (rank_stabilized ? std::sqrt(r) : r);
}

AdapterConfig read_adapter_config(const fs::path& folder) {
  const fs::path path = folder / "adapter_config.json";
  if (!fs::exists(path)) {
    throw_bad_input(folder.string() + ": has no adapter_config.json",
                    "name the folder of a LoRA adapter in PEFT's layout");
  }
  const Json json = Json::parse_file(path.string(), {.max_bytes = size_t{16} << 20});
  if (const std::string type = json.string_or("peft_type", "LORA"); type != "LORA") {
    json.at("peft_type").fail(fmt::format("is '{}', expected LORA", printable(type, 40)));
  }
  for (const char* flag : {"use_dora", "fan_in_fan_out", "use_qalora"}) {
    if (json.boolean_or(flag, false)) json.at(flag).fail("is true, which is not supported");
  }
  for (const char* field : {"layer_replication", "megatron_config"}) {
    if (json.has(field)) json.at(field).fail("is set, which is not supported");
  }
  if (const std::string bias = json.string_or("bias", "none"); bias != "none") {
    json.at("bias").fail(fmt::format("is '{}', expected none", printable(bias, 40)));
  }
  AdapterConfig config;
  config.rank = json.at("r").integer(1, 1 << 16);
  config.alpha = json.at("lora_alpha").number(-1e9, 1e9);
  config.rank_stabilized = json.boolean_or("use_rslora", false);
  config.target_modules = strings(json, "target_modules");
  config.modules_to_save = strings(json, "modules_to_save");
  if (const auto pattern = json.find("rank_pattern")) {
    for (const auto& [key, value] : pattern->members()) {
      config.rank_pattern[key] = value.integer(1, 1 << 16);
    }
  }
  if (const auto pattern = json.find("alpha_pattern")) {
    for (const auto& [key, value] : pattern->members()) {
      config.alpha_pattern[key] = value.number(-1e9, 1e9);
    }
  }
  return config;
}

}  // namespace quern
