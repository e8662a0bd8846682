#include "model/parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>

#include "core/checked.h"
#include "model/initialize.h"
#include "model/stored_tensors.h"

namespace quern {
namespace {

constexpr int64_t kAlignment = 16;  // floats: each tensor begins with a cache line of its own

// The layer that a tensor belongs to: -1 before the layers, config.layers behind them.
int64_t layer_of(const TensorSpec& spec, const Config& config) noexcept {
  return spec.part == Part::FinalNorm || spec.part == Part::LmHead ? config.layers : spec.layer;
}

}  // namespace

Parameters::Parameters(const Config& config, std::vector<TensorSpec> specs)
    : config_(config), specs_(std::move(specs)) {
  std::ranges::stable_sort(specs_, {},
                           [&](const TensorSpec& spec) { return layer_of(spec, config); });
  int64_t total = 0, layer = -1;
  layer_offsets_.push_back(0);
  for (const TensorSpec& spec : specs_) {
    const int64_t own = layer_of(spec, config);
    for (; layer < own; ++layer) layer_offsets_.push_back(total);
    offsets_.push_back(total);
    const int64_t padded = (spec.shape.count() + kAlignment - 1) / kAlignment * kAlignment;
    total = checked_add(total, padded, "the model's parameters");
  }
  for (; layer <= config.layers; ++layer) layer_offsets_.push_back(total);
}

Parameters::Parameters(Backend& backend, const Config& config)
    : Parameters(backend, config, tensor_specs(config)) {}

Parameters::Parameters(Backend& backend, const Config& config, std::vector<TensorSpec> specs)
    : Parameters(config, std::move(specs)) {
  block_ = backend.allocate(DType::F32, {std::max<int64_t>(layer_offsets_.back(), 1)});
  bind(config, block_.floats());
}

Parameters::Parameters(const Config& config, std::vector<TensorSpec> specs, std::span<float> memory)
    : Parameters(config, std::move(specs)) {
  bind(config, memory);
}

std::vector<int64_t> Parameters::layer_offsets(const Config& config,
                                               std::vector<TensorSpec> specs) {
  return Parameters(config, std::move(specs)).layer_offsets_;
}

std::span<float> Parameters::layer(int64_t index) noexcept {
  const auto i = static_cast<size_t>(index + 1);
  return all().subspan(static_cast<size_t>(layer_offsets_[i]),
                       static_cast<size_t>(layer_offsets_[i + 1] - layer_offsets_[i]));
}

void Parameters::bind(const Config& config, std::span<float> memory) {
  all_ = memory.first(static_cast<size_t>(layer_offsets_.back()));
  weights_.layers.resize(static_cast<size_t>(config.layers));
  bind_into(weights_);
}

void Parameters::bind_into(Weights& weights) const {
  for (size_t i = 0; i < specs_.size(); ++i) {
    const TensorSpec& spec = specs_[i];
    const std::span<const float> values = tensor(i);
    if (spec.shape.rank() == 2) {
      bind_matrix(weights, spec, config_,
                  {.format = WeightFormat::F32,
                   .rows = spec.shape[0],
                   .cols = spec.shape[1],
                   .data = reinterpret_cast<const std::byte*>(values.data())});
    } else {
      bind_vector(weights, spec, config_, values);
    }
  }
}

Weights Parameters::over(const Weights& frozen) const {
  Weights weights = frozen;
  bind_into(weights);
  return weights;
}

std::span<float> Parameters::tensor(size_t index) noexcept {
  return all().subspan(static_cast<size_t>(offsets_[index]),
                       static_cast<size_t>(specs_[index].shape.count()));
}

std::span<const float> Parameters::tensor(size_t index) const noexcept {
  return all().subspan(static_cast<size_t>(offsets_[index]),
                       static_cast<size_t>(specs_[index].shape.count()));
}

MutRows Parameters::matrix(const Weight& weight) noexcept {
  if (weight.empty()) return {};
  assert(weight.format == WeightFormat::F32);
  const auto* data = reinterpret_cast<const float*>(weight.data);
  assert(data >= all_.data() && data < all_.data() + all_.size());
  return {all_.data() + (data - all_.data()), weight.rows, weight.cols, weight.cols};
}

std::span<float> Parameters::vector(std::span<const float> values) noexcept {
  if (values.empty()) return {};
  assert(values.data() >= all_.data() && values.data() < all_.data() + all_.size());
  return all_.subspan(static_cast<size_t>(values.data() - all_.data()), values.size());
}

void Parameters::clear(Backend& backend) { backend.clear(all()); }

void Parameters::initialize(const Config& config, uint64_t seed) {
  for (size_t i = 0; i < specs_.size(); ++i) {
    quern::initialize(tensor(i), specs_[i], config, seed);
  }
}

void Parameters::load(const TensorStore& checkpoint) {
  for (size_t i = 0; i < specs_.size(); ++i) {
    const std::vector<float> values = tensor_floats(checkpoint, specs_[i], config_);
    std::copy(values.begin(), values.end(), tensor(i).begin());
  }
}

}  // namespace quern
