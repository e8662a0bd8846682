// quern convert --family: Qwen's first layout as that of Qwen2, which other programs read.
#pragma once

#include <string>
#include <vector>

#include "formats/safetensors.h"
#include "model/config.h"

namespace quern::cli {

struct FamilyChange {
  Config config;                     // of the result
  std::vector<NamedTensor> tensors;  // views of those that were given
  std::vector<std::string> lost;     // what the other family cannot say, in words
};

// Throws Misused for another pair than qwen to qwen2, BadInput for tensors that are not those of
// the configuration or not floats, Unsupported for what the other layout has no place for at all.
FamilyChange change_family(const Config& from, const std::vector<NamedTensor>& tensors,
                           const std::string& family);

}  // namespace quern::cli
