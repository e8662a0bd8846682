// Which model an adapter was tuned over: base.json in its folder, {"path", "weights_bytes",
// "weights_sha256"}. Adapters made elsewhere have none.
#pragma once

#include <string>
#include <vector>

#include "core/file.h"

namespace quern {

// The files that hold a model's weights, sorted: a GGUF file with its parts, or a folder's
// model*.safetensors and pytorch_model*.bin.
std::vector<fs::path> weight_files(const fs::path& model);

// SHA-256 over them, in hexadecimal; of a single file that of the file.
std::string hash_weights(const fs::path& model);

// Throws BadInput where the adapter in `folder` was tuned over other weights than those of `hash`.
void check_base(const fs::path& folder, const std::string& hash);

// The same for use: a warning, or with `strict` an error, where base.json names other weights than
// those of `model`. Large weights of the right size are hashed with `strict` alone.
void warn_of_other_base(const fs::path& adapter, const fs::path& model, bool strict);

}  // namespace quern
