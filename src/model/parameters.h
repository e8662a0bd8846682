// Some of a model's tensors as float32 in one block of memory: what is trained, its gradients, and
// the optimizer's moments, all laid out alike. What is trained is a choice: every tensor, adapters
// alone, adapters and the head. The rest stays frozen, in the format of its file.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compute/backend.h"
#include "formats/safetensors.h"
#include "model/config.h"
#include "model/tensors.h"
#include "model/weights.h"

namespace quern {

class Parameters {
 public:
  // `specs`: of tensor_specs() and adapter_specs(); none given: every tensor of the model. All
  // zeros. Throws NoResources where there is not enough memory.
  Parameters(Backend& backend, const Config& config);
  Parameters(Backend& backend, const Config& config, std::vector<TensorSpec> specs);
  // In memory of the caller's, of layer_offsets(config, specs).back() floats, as they are.
  Parameters(const Config& config, std::vector<TensorSpec> specs, std::span<float> memory);
  Parameters(Parameters&&) = default;
  Parameters& operator=(Parameters&&) = default;

  // In the order of the forward pass: by layer, those of a layer as they were given.
  const std::vector<TensorSpec>& specs() const noexcept { return specs_; }
  std::span<float> tensor(size_t index) noexcept;
  std::span<const float> tensor(size_t index) const noexcept;

  // Everything as one span; between tensors lie zeros that stay zeros.
  std::span<float> all() noexcept { return all_; }
  std::span<const float> all() const noexcept { return all_; }

  // The tensors of a layer, which lie side by side. Layer -1: what comes before the layers, the
  // embedding; layer config.layers: what comes behind them.
  std::span<float> layer(int64_t index) noexcept;
  // Whether a tensor of this layer or of one before it is here.
  bool any_up_to(int64_t layer) const noexcept {
    return layer_offsets_[static_cast<size_t>(layer + 2)] > 0;
  }
  // Where in all() layers -1, 0, ... and config.layers begin, and where the last one ends.
  static std::vector<int64_t> layer_offsets(const Config& config, std::vector<TensorSpec> specs);

  // As the forward pass reads them. What isn't among the tensors is empty here.
  const Weights& weights() const noexcept { return weights_; }
  // A frozen model with these tensors in their places: what training of some tensors runs on.
  Weights over(const Weights& frozen) const;

  // The memory of a tensor that weights() shows, for writing: a gradient's place. Empty for none.
  MutRows matrix(const Weight& weight) noexcept;
  std::span<float> vector(std::span<const float> values) noexcept;

  void clear(Backend& backend);                          // all zeros
  void initialize(const Config& config, uint64_t seed);  // see model/initialize.h

  // Takes every tensor from a checkpoint, converted to float. Throws BadInput for one that is
  // missing, misshapen or not finite.
  void load(const TensorStore& checkpoint);

 private:
  Parameters(const Config& config, std::vector<TensorSpec> specs);
  void bind(const Config& config, std::span<float> memory);
  void bind_into(Weights& weights) const;

  Config config_;
  std::vector<TensorSpec> specs_;
  std::vector<int64_t> offsets_;  // of each tensor in all(), in floats
  std::vector<int64_t> layer_offsets_;
  Tensor block_;  // empty in memory of the caller's
  std::span<float> all_;
  Weights weights_;
};

// Where a pass puts gradients: into the tensors of `into`, which may be any part of the model's.
// For a tensor that isn't there nothing is computed.
struct GradientSink {
  enum class Mode : uint8_t { Add, Set };
  Parameters& into;
  Mode mode = Mode::Add;
};

}  // namespace quern
