#include "quantize/matrix_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "model/pack_weights.h"

namespace quern {

MatrixReader::MatrixReader(Backend& backend, const Config& config, Weights weights,
                           std::string source)
    : backend_(backend),
      config_(config),
      weights_(std::move(weights)),
      source_(std::move(source)) {}

std::vector<MatrixReader::Stretch> MatrixReader::stretches(const TensorSpec& spec) {
  if (spec.part == Part::Positions) return {{weights_.positions, 0}};
  if (spec.role == Role::Embedding) return {{weights_.embedding, 0}};
  std::vector<Stretch> out;
  for (const LinearSlice& slice : linears_of(weights_, spec, config_)) {
    out.push_back({slice.linear->weight, slice.first_row});
  }
  return out;
}

std::vector<float> MatrixReader::rows(const TensorSpec& spec, int64_t begin, int64_t count) {
  const int64_t cols = spec.shape[1];
  std::vector<float> out(static_cast<size_t>(count * cols));
  for (const Stretch& stretch : stretches(spec)) {
    const int64_t first = std::max(begin, stretch.first_row);
    const int64_t last = std::min(begin + count, stretch.first_row + stretch.weight.rows);
    if (first >= last) continue;
    std::vector<int32_t> ids(static_cast<size_t>(last - first));
    std::iota(ids.begin(), ids.end(), static_cast<int32_t>(first - stretch.first_row));
    backend_.embed({out.data() + (first - begin) * cols, last - first, cols, cols}, stretch.weight,
                   ids);
  }
  for (size_t i = 0; i < out.size(); ++i) {
    if (std::isfinite(out[i])) continue;
    const auto at = static_cast<int64_t>(i);
    throw_bad_input(fmt::format("{}: {} has a value that is NaN or infinite, at [{}, {}]", source_,
                                spec.name, begin + at / cols, at % cols),
                    "the file is damaged, or its training went wrong");
  }
  return out;
}

std::vector<float> MatrixReader::bias(const TensorSpec& spec) {
  std::vector<float> out(static_cast<size_t>(spec.shape[0]));
  for (const LinearSlice& slice : linears_of(weights_, spec, config_)) {
    std::copy(slice.linear->bias.begin(), slice.linear->bias.end(), out.begin() + slice.first_row);
  }
  return out;
}

void MatrixReader::forget(const TensorSpec& spec) {
  for (const Stretch& stretch : stretches(spec)) {
    const Weight& w = stretch.weight;
    const int64_t size = w.format == WeightFormat::F32 ? 4 : 2;
    forget_mapped(w.data, static_cast<uint64_t>(w.rows * w.cols * size));
  }
}

}  // namespace quern
