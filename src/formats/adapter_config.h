// LoRA adapters in PEFT's layout: adapter_config.json beside adapter_model.safetensors.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/file.h"

namespace quern {

struct AdapterConfig {
  int64_t rank = 0;
  double alpha = 0;
  bool rank_stabilized = false;              // rsLoRA: alpha / sqrt(rank) instead of alpha / rank
  std::vector<std::string> target_modules;   // last parts of module names
  std::vector<std::string> modules_to_save;  // stored in full
  std::map<std::string, int64_t> rank_pattern;  // module name or its end → rank
  std::map<std::string, double> alpha_pattern;

  // alpha / rank for a module, with the patterns applied.
  double scale(std::string_view module, int64_t module_rank) const;
};

// Throws BadInput naming the field; what would change the mathematics and is not supported (DoRA,
// trained biases, layer replication, fan_in_fan_out) is refused by name.
AdapterConfig read_adapter_config(const fs::path& folder);

}  // namespace quern
