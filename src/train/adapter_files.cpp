#include "train/adapter_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "model/adapter_base.h"

namespace quern {

void write_adapter_files(const fs::path& folder, const RunConfig& config, const std::string& hash) {
  const TuneOptions& tune = *config.tune;
  using nlohmann::json;
  std::vector<std::string> targets = tune.targets;
  std::sort(targets.begin(), targets.end());
  const json saved = tune.saved_modules.empty() ? json() : json(tune.saved_modules);
  const json peft = {{"alpha_pattern", json::object()},
                     {"auto_mapping", nullptr},
                     {"base_model_name_or_path", config.init_from.string()},
                     {"bias", "none"},
                     {"fan_in_fan_out", false},
                     {"inference_mode", true},
                     {"init_lora_weights", true},
                     {"layer_replication", nullptr},
                     {"layers_pattern", nullptr},
                     {"layers_to_transform", nullptr},
                     {"loftq_config", json::object()},
                     {"lora_alpha", tune.alpha},
                     {"lora_dropout", tune.dropout},
                     {"megatron_config", nullptr},
                     {"megatron_core", "megatron.core"},
                     {"modules_to_save", saved},
                     {"peft_type", "LORA"},
                     {"r", tune.rank},
                     {"rank_pattern", json::object()},
                     {"revision", nullptr},
                     {"target_modules", targets},
                     {"task_type", "CAUSAL_LM"},
                     {"use_dora", false},
                     {"use_rslora", tune.rank_stabilized}};
  write_file(folder / "adapter_config.json", peft.dump(2) + "\n");
  uint64_t bytes = 0;
  for (const fs::path& file : weight_files(config.init_from)) bytes += fs::file_size(file);
  const nlohmann::ordered_json base = {
      {"path", config.init_from.string()}, {"weights_bytes", bytes}, {"weights_sha256", hash}};
  write_file(folder / "base.json", dump(base, 2) + "\n");
}

}  // namespace quern
