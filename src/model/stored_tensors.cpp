#include "model/stored_tensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace quern {

std::string stored_name(const TensorStore& store, const std::string& name) {
  constexpr std::string_view kPrefix = "transformer.";
  if (store.find(name)) return name;
  if (name.starts_with(kPrefix) && store.find(name.substr(kPrefix.size()))) {
    return name.substr(kPrefix.size());
  }
  for (const char* outer : {"language_model.", "model.language_model."}) {
    if (store.find(outer + name)) return outer + name;
  }
  return name;
}

void normalize_rows(std::span<float> values, size_t cols) {
  for (size_t begin = 0; begin < values.size(); begin += cols) {
    const auto row = values.subspan(begin, cols);
    double squares = 0;
    for (const float x : row) squares += double{x} * x;
    const auto length = static_cast<float>(std::max(std::sqrt(squares), 1e-12));
    for (float& x : row) x /= length;
  }
}

ConstTensorView checked_tensor(const TensorStore& store, const std::string& name,
                               const Shape& shape) {
  const auto view = store.find(name);
  if (!view) {
    throw_bad_input(fmt::format("{}: lacks the tensor {}", store.source().string(), name),
                    "config.json and the weights come from different models, or a file is missing");
  }
  if (!(view->shape == shape)) {
    throw_bad_input(fmt::format("{}: {} is {}, config.json implies {}", store.file_of(name), name,
                                to_string(view->shape), to_string(shape)),
                    "config.json and the weights come from different models");
  }
  return *view;
}

std::vector<float> tensor_floats(const TensorStore& store, const TensorSpec& spec,
                                 const Config& config) {
  const std::string name = stored_name(store, spec.name);
  const ConstTensorView view = checked_tensor(store, name, file_shape(spec, config));
  const std::string where = store.file_of(name) + ": " + name;
  std::vector<float> values = to_floats(view, where);
  if (!std::ranges::all_of(values, [](float x) { return std::isfinite(x); })) {
    throw_bad_input(where + " has a value that is not finite",
                    "the file is damaged, or its training went wrong");
  }
  if (in_file_order(spec, config)) return values;
  std::vector<float> ours(values.size());
  reorder_tensor(std::as_writable_bytes(std::span(ours)),
                 std::as_bytes(std::span<const float>(values)), spec, config, sizeof(float),
                 TensorOrder::Ours);
  return ours;
}

std::vector<int32_t> file_rows(const TensorSpec& spec, const Config& config) {
  TensorSpec column = spec;  // a number for each row, reordered as a bias is
  column.shape = Shape{spec.shape[0]};
  column.role = Role::Bias;
  if (in_file_order(column, config)) return {};
  std::vector<int32_t> theirs(static_cast<size_t>(spec.shape[0])), rows(theirs.size());
  std::iota(theirs.begin(), theirs.end(), 0);
  reorder_tensor(std::as_writable_bytes(std::span(rows)),
                 std::as_bytes(std::span<const int32_t>(theirs)), column, config, sizeof(int32_t),
                 TensorOrder::Ours);
  return rows;
}

std::vector<float> floats_for_file(std::span<const float> values, const TensorSpec& spec,
                                   const Config& config) {
  std::vector<float> out(values.begin(), values.end());
  if (in_file_order(spec, config)) return out;
  reorder_tensor(std::as_writable_bytes(std::span(out)), std::as_bytes(values), spec, config,
                 sizeof(float), TensorOrder::Files);
  return out;
}

}  // namespace quern
