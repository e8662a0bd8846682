#include "train/adapter_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "formats/gguf.h"

namespace quern {

std::vector<fs::path> weight_files(const fs::path& model) {
  std::vector<fs::path> files;
  if (is_gguf(model)) {
    for (const fs::path& file : GgufFile(model).files()) files.push_back(file);
  } else {
    for (const auto& entry : fs::directory_iterator(model)) {
      // The model's own: an optimizer's state or an adapter may lie beside them.
      const std::string name = entry.path().filename().string();
      const bool own = name.starts_with("model") && name.ends_with(".safetensors");
      const bool torch = name.starts_with("pytorch_model") && name.ends_with(".bin");
      if (entry.is_regular_file() && (own || torch)) {
        files.push_back(entry.path());
      }
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string hash_weights(const fs::path& model) {
  const std::vector<fs::path> files = weight_files(model);
  if (files.size() == 1) return sha256_file(files[0]);
  std::string all;
  for (const fs::path& file : files) {
    all += fmt::format("{} {}\n", file.filename().string(), sha256_file(file));
  }
  return sha256(all);
}

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
  const nlohmann::ordered_json base = {{"path", config.init_from.string()},
                                       {"weights_sha256", hash}};
  write_file(folder / "base.json", dump(base, 2) + "\n");
}

void check_base(const fs::path& folder, const std::string& hash) {
  const fs::path path = folder / "base.json";
  const std::string own = Json::parse_file(path.string()).at("weights_sha256").string();
  if (own == hash) return;
  throw_bad_input(
      fmt::format("{}: the adapter was tuned over weights of hash {}, the model's is {}",
                  path.string(), printable(own.substr(0, 12)), hash.substr(0, 12)),
      "name the model that it was tuned over");
}

}  // namespace quern
