// LoRA adapters in PEFT's layout: adapter_config.json beside adapter_model.safetensors.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/file.h"
#include "formats/name_pattern.h"

namespace quern {

struct AdapterConfig {
  int64_t rank = 0;
  double alpha = 0;
  bool rank_stabilized = false;              // rsLoRA: alpha / sqrt(rank) instead of alpha / rank
  bool all_linear = false;                   // every matrix but the head is a target
  std::vector<std::string> target_modules;   // module names or their ends
  std::vector<NamePattern> target_patterns;  // one: target_modules was a regular expression
  std::vector<std::string> modules_to_save;  // stored in full
  // In the file's order; the first whose pattern matches a module's name, or its end behind a dot,
  // counts.
  std::vector<std::pair<NamePattern, int64_t>> rank_pattern;
  std::vector<std::pair<NamePattern, double>> alpha_pattern;

  int64_t rank_of(std::string_view module) const;
  // alpha / rank for a module, with the patterns applied.
  double scale(std::string_view module) const;
  // Whether the module is one that the adapter says it changes. Where it names no target at all,
  // all that it has tensors for.
  bool targets(std::string_view module) const;
};

// Throws BadInput naming the field; what would change the mathematics and is not supported (DoRA,
// trained biases, layer replication, fan_in_fan_out, updates of changed base weights) is refused by
// name, as Unsupported. Warns of keys that are not known.
AdapterConfig read_adapter_config(const fs::path& folder);

}  // namespace quern
