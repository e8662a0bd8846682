#include "model/parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>

#include "core/checked.h"
#include "model/initialize.h"

namespace quern {
namespace {

constexpr int64_t kAlignment = 16;  // floats: each tensor begins with a cache line of its own

}  // namespace

Parameters::Parameters(const Config& config) : specs_(tensor_specs(config)) {
  int64_t total = 0, layer = -1;
  layer_offsets_.push_back(0);
  for (const TensorSpec& spec : specs_) {
    const bool behind = spec.part == Part::FinalNorm || spec.part == Part::LmHead;
    const int64_t own = behind ? config.layers : spec.layer;
    for (; layer < own; ++layer) layer_offsets_.push_back(total);
    offsets_.push_back(total);
    const int64_t padded = (spec.shape.count() + kAlignment - 1) / kAlignment * kAlignment;
    total = checked_add(total, padded, "the model's parameters");
  }
  layer_offsets_.push_back(total);
}

Parameters::Parameters(Backend& backend, const Config& config) : Parameters(config) {
  block_ = backend.allocate(DType::F32, {layer_offsets_.back()});
  bind(config, block_.floats());
}

Parameters::Parameters(const Config& config, std::span<float> memory) : Parameters(config) {
  bind(config, memory);
}

std::vector<int64_t> Parameters::layer_offsets(const Config& config) {
  return Parameters(config).layer_offsets_;
}

std::span<float> Parameters::layer(int64_t index) noexcept {
  const auto i = static_cast<size_t>(index + 1);
  return all().subspan(static_cast<size_t>(layer_offsets_[i]),
                       static_cast<size_t>(layer_offsets_[i + 1] - layer_offsets_[i]));
}

void Parameters::bind(const Config& config, std::span<float> memory) {
  all_ = memory.first(static_cast<size_t>(layer_offsets_.back()));
  // bind_weights asks for each tensor once, in the order of the specs.
  size_t next = 0;
  const auto take = [&]([[maybe_unused]] const TensorSpec& spec) {
    assert(specs_[next].name == spec.name);
    return tensor(next++);
  };
  weights_ = bind_weights(
      config,
      {.matrix =
           [&](const TensorSpec& spec) {
             return Weight{.format = WeightFormat::F32,
                           .rows = spec.shape[0],
                           .cols = spec.shape[1],
                           .data = reinterpret_cast<const std::byte*>(take(spec).data())};
           },
       .vector = [&](const TensorSpec& spec) -> std::span<const float> { return take(spec); }});
}

std::span<float> Parameters::tensor(size_t index) noexcept {
  return all().subspan(static_cast<size_t>(offsets_[index]),
                       static_cast<size_t>(specs_[index].shape.count()));
}

std::span<const float> Parameters::tensor(size_t index) const noexcept {
  return all().subspan(static_cast<size_t>(offsets_[index]),
                       static_cast<size_t>(specs_[index].shape.count()));
}

MutRows Parameters::twin(const Parameters& other, const Weight& weight) noexcept {
  assert(weight.format == WeightFormat::F32);
  const auto* data = reinterpret_cast<const float*>(weight.data);
  return {all().data() + (data - other.all().data()), weight.rows, weight.cols, weight.cols};
}

std::span<float> Parameters::twin(const Parameters& other, std::span<const float> vector) noexcept {
  if (vector.empty()) return {};
  return {all().data() + (vector.data() - other.all().data()), vector.size()};
}

void Parameters::clear(Backend& backend) { backend.clear(all()); }

void Parameters::initialize(const Config& config, uint64_t seed) {
  for (size_t i = 0; i < specs_.size(); ++i) {
    quern::initialize(tensor(i), specs_[i], config, seed);
  }
}

void Parameters::load(const TensorStore& checkpoint) {
  for (size_t i = 0; i < specs_.size(); ++i) {
    const TensorSpec& spec = specs_[i];
    const ConstTensorView view = checkpoint.at(spec.name);
    const std::string where = checkpoint.file_of(spec.name) + ": " + spec.name;
    if (!(view.shape == spec.shape)) {
      throw_bad_input(fmt::format("{} is {}, config.json implies {}", where, to_string(view.shape),
                                  to_string(spec.shape)),
                      "config.json and the weights come from different models");
    }
    const std::vector<float> values = to_floats(view, where);
    if (!std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); })) {
      throw_bad_input(where + " has a value that is not finite",
                      "the file is damaged, or its training went wrong");
    }
    std::copy(values.begin(), values.end(), tensor(i).begin());
  }
}

}  // namespace quern
