// A LoRA adapter beside a model's weights: one copy of the base, and low-rank updates that each
// sequence of a batch may choose (Request::adapter). An adapter that is part of the weights
// themselves is LoadOptions::adapters.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "formats/safetensors.h"
#include "model/config.h"
#include "model/weights.h"

namespace quern {

// The update of one matrix, or of the rows that it has in a fused one.
struct AdapterUpdate {
  Linear* linear;
  LowRank update;
  std::string module;  // its name in PEFT's layout
};

// adapter_model.safetensors of PEFT's layout. Throws BadInput where it is missing or damaged.
TensorStore open_adapter(const std::filesystem::path& folder);

// Reads the `tensors` of an adapter's folder for the model whose matrices `weights` has.
// `floats` owns the factors; `saved` is told of modules stored in full (modules_to_save), by their
// tensor's name. Throws BadInput naming file and tensor: of another model or shape, not finite, a
// rank other than adapter_config.json says; Unsupported for a matrix that takes no update.
std::vector<AdapterUpdate> read_adapter(
    const std::filesystem::path& folder, const TensorStore& tensors, Weights& weights,
    const Config& config, const Config& layout, std::deque<std::vector<float>>& floats,
    const std::function<void(const TensorSpec&, const std::string&)>& saved);

class Adapter {
 public:
  // For `model`, the checkpoint whose folder or file is `base`. Throws what read_adapter throws, and
  // Unsupported for what belongs to all sequences at once: modules stored in full, updates of the
  // head or of experts.
  static std::shared_ptr<const Adapter> load(const std::filesystem::path& folder,
                                             const std::filesystem::path& base,
                                             const Weights& model, const Config& config);

  // Null where the adapter leaves the matrix as it is.
  const LowRank* find(const Linear& linear) const noexcept {
    const auto found = updates_.find(&linear);
    return found == updates_.end() ? nullptr : &found->second;
  }
  int64_t max_rank() const noexcept { return max_rank_; }
  uint64_t bytes() const noexcept { return bytes_; }  // of its factors, float32
  // Differs for all that are loaded in a process: what caches tell them apart by.
  uint64_t id() const noexcept { return id_; }

 private:
  Adapter() = default;

  std::deque<std::vector<float>> floats_;
  std::unordered_map<const Linear*, LowRank> updates_;
  int64_t max_rank_ = 0;
  uint64_t bytes_ = 0, id_ = 0;
};

}  // namespace quern
