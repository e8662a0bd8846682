// The sum of a step's gradients along one fixed binary tree over its micro-batches,
// ((0+1)+(2+3))+..., so that ranks which hold subtrees come to the same bits as one process.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "model/parameters.h"

namespace quern {

class GradientTree {
 public:
  GradientTree(Backend& backend, const Config& config, std::vector<TensorSpec> specs);

  // Buffers that a sum of so many leaves takes.
  static int64_t buffers(int64_t leaves) noexcept;

  void begin();         // forgets the last sum
  Parameters& leaf();   // zeros, for the next micro-batch's gradient
  void close_leaf();    // it is there
  Parameters& total();  // of all leaves since begin(); at least one

 private:
  void join_last_two();

  Backend& backend_;
  const Config& config_;
  std::vector<TensorSpec> specs_;
  std::vector<std::unique_ptr<Parameters>> free_;
  // Sums of 2^level leaves, the highest level first.
  std::vector<std::pair<int, std::unique_ptr<Parameters>>> sums_;
};

}  // namespace quern
