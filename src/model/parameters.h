// A model's tensors as float32 in one block of memory: the parameters in training, their gradients,
// and the optimizer's moments, all laid out alike.
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
  // All zeros. Throws NoResources where there is not enough memory.
  Parameters(Backend& backend, const Config& config);
  // In memory of the caller's, of layer_offsets(config).back() floats, as they are.
  Parameters(const Config& config, std::span<float> memory);
  Parameters(Parameters&&) = default;
  Parameters& operator=(Parameters&&) = default;

  // The tensors in the order of tensor_specs().
  const std::vector<TensorSpec>& specs() const noexcept { return specs_; }
  std::span<float> tensor(size_t index) noexcept;
  std::span<const float> tensor(size_t index) const noexcept;

  // Everything as one span; between tensors lie zeros that stay zeros.
  std::span<float> all() noexcept { return all_; }
  std::span<const float> all() const noexcept { return all_; }

  // The tensors of a layer, which lie side by side. Layer -1: what comes before the layers, the
  // embedding; layer config.layers: what comes behind them.
  std::span<float> layer(int64_t index) noexcept;
  // Where in all() layers -1, 0, ... and config.layers begin, and where the last one ends.
  static std::vector<int64_t> layer_offsets(const Config& config);

  // As the forward pass reads them.
  const Weights& weights() const noexcept { return weights_; }

  // What lies here where `weight` or `vector` lies in `other`: a parameter's gradient, say.
  MutRows twin(const Parameters& other, const Weight& weight) noexcept;
  std::span<float> twin(const Parameters& other, std::span<const float> vector) noexcept;

  void clear(Backend& backend);                          // all zeros
  void initialize(const Config& config, uint64_t seed);  // see model/initialize.h

  // Takes every tensor from a checkpoint, converted to float. Throws BadInput for one that is
  // missing, misshapen or not finite.
  void load(const TensorStore& checkpoint);

 private:
  explicit Parameters(const Config& config);
  void bind(const Config& config, std::span<float> memory);

  std::vector<TensorSpec> specs_;
  std::vector<int64_t> offsets_;  // of each tensor in all(), in floats
  std::vector<int64_t> layer_offsets_;
  Tensor block_;  // empty in memory of the caller's
  std::span<float> all_;
  Weights weights_;
};

}  // namespace quern
