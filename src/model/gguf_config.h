// A model's configuration in the metadata of a GGUF file, read and written.
#pragma once

#include <string>
#include <vector>

#include "formats/gguf.h"
#include "formats/gguf_writer.h"
#include "model/config.h"

namespace quern {

// Reads the architectures of model/gguf_archs.h and refuses others by name. The result has the file's
// layout (gguf_layout), not that of the family's own files. Throws BadInput naming the key.
Config gguf_config(const GgufFile& file);

// Writes the metadata of a model; `config` is as config.json says it.
void add_gguf_config(GgufWriter& out, const Config& config, const std::string& name);

// What llama.cpp computes otherwise than the model, in words; empty where it computes the same.
// Throws Unsupported for a model whose architecture has no place for a part of it, or that has no
// architecture.
std::vector<std::string> lost_in_gguf(const Config& config);

// What each rotary frequency is divided by, as a tensor of the file: its name, and a factor for each
// frequency. Empty for models that have none.
struct GgufFactors {
  std::string name;
  std::vector<float> values;
};
std::vector<GgufFactors> gguf_rope_factors(const Config& config);
bool is_gguf_rope_factors(std::string_view name) noexcept;

}  // namespace quern
