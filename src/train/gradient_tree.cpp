#include "train/gradient_tree.h"

#include <bit>

namespace quern {

GradientTree::GradientTree(Backend& backend, const Config& config, std::vector<TensorSpec> specs)
    : backend_(backend), config_(config), specs_(std::move(specs)) {
  free_.push_back(std::make_unique<Parameters>(backend_, config_, specs_));
}

int64_t GradientTree::buffers(int64_t leaves) noexcept {
  return std::bit_width(static_cast<uint64_t>(leaves < 1 ? 0 : leaves - 1)) + 1;
}

void GradientTree::begin() {
  for (auto& [level, sum] : sums_) free_.push_back(std::move(sum));
  sums_.clear();
}

Parameters& GradientTree::leaf() {
  if (free_.empty()) free_.push_back(std::make_unique<Parameters>(backend_, config_, specs_));
  sums_.emplace_back(0, std::move(free_.back()));
  free_.pop_back();
  sums_.back().second->clear(backend_);
  return *sums_.back().second;
}

void GradientTree::close_leaf() {
  while (sums_.size() >= 2 && sums_[sums_.size() - 2].first == sums_.back().first) join_last_two();
}

Parameters& GradientTree::total() {
  while (sums_.size() >= 2) join_last_two();
  return *sums_.back().second;
}

void GradientTree::join_last_two() {
  auto& [level, left] = sums_[sums_.size() - 2];
  const std::span<const float> right = sums_.back().second->all();
  const std::span<float> to = left->all();
  for (size_t i = 0; i < to.size(); ++i) to[i] += right[i];
  ++level;
  free_.push_back(std::move(sums_.back().second));
  sums_.pop_back();
}

}  // namespace quern
