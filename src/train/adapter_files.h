// What an adapter's checkpoint holds beside its tensors: PEFT's description, and the base model.
#pragma once

#include <string>
#include <vector>

#include "core/file.h"
#include "model/adapter_base.h"
#include "train/run_config.h"

namespace quern {

inline constexpr const char* kAdapterWeights = "adapter_model.safetensors";

// adapter_config.json as PEFT writes it, and base.json: {"path", "weights_bytes", "weights_sha256"}.
void write_adapter_files(const fs::path& folder, const RunConfig& config, const std::string& hash);

}  // namespace quern
