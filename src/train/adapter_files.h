// What an adapter's checkpoint holds beside its tensors: PEFT's description, and the base model.
#pragma once

#include <string>
#include <vector>

#include "core/file.h"
#include "train/run_config.h"

namespace quern {

inline constexpr const char* kAdapterWeights = "adapter_model.safetensors";

// The files that hold a model's weights, sorted: a GGUF file with its parts, or a folder's
// model*.safetensors and pytorch_model*.bin.
std::vector<fs::path> weight_files(const fs::path& model);

// SHA-256 over them, in hexadecimal; of a single file that of the file.
std::string hash_weights(const fs::path& model);

// adapter_config.json as PEFT writes it, and base.json: {"path", "weights_sha256"}.
void write_adapter_files(const fs::path& folder, const RunConfig& config, const std::string& hash);

// Throws BadInput where the adapter in `folder` was tuned over other weights than those of `hash`.
void check_base(const fs::path& folder, const std::string& hash);

}  // namespace quern
