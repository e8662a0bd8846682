// The matrices of a float checkpoint, as the file has them: what the forward pass has in parts (q,
// k and v of a fused one) put together, in floats.
#pragma once

#include <string>
#include <vector>

#include "compute/backend.h"
#include "model/weights.h"

namespace quern {

class MatrixReader {
 public:
  // `weights` are dense and mapped from files, which `source` names in messages.
  MatrixReader(Backend& backend, const Config& config, Weights weights, std::string source);

  const Weights& weights() const noexcept { return weights_; }

  // Rows [begin, begin + count) of a matrix, a head or an embedding: [count, cols]. Throws BadInput
  // naming the matrix and the place of a value that is not finite.
  std::vector<float> rows(const TensorSpec& spec, int64_t begin, int64_t count);
  std::vector<float> all(const TensorSpec& spec) { return rows(spec, 0, spec.shape[0]); }

  // The bias that belongs to a matrix or stands in the list itself: [rows], zeros where none is.
  std::vector<float> bias(const TensorSpec& spec);

  // Lets the system take back the memory of the file's pages: they are not needed soon.
  void forget(const TensorSpec& spec);

 private:
  struct Stretch {
    Weight weight;
    int64_t first_row;
  };
  std::vector<Stretch> stretches(const TensorSpec& spec);

  Backend& backend_;
  const Config& config_;
  Weights weights_;
  std::string source_;
};

}  // namespace quern
