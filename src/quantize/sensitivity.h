// How many bits each matrix should have: what every choice would cost, measured on a text, and the
// choices that cost least at a given size.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quantize/gptq_solver.h"
#include "quantize/matrix_reader.h"

namespace quern {

// Bits and group that a matrix may get.
struct BitChoice {
  int bits = 4;
  int64_t group = 128;

  // With scale and zero, as the file has them.
  double bits_per_weight() const noexcept {
    return bits + (16.0 + bits) / static_cast<double>(group);
  }
};

struct Sensitivity {
  std::string module;
  int64_t weights = 0;
  std::vector<BitChoice> choices;  // from the fewest bits to the most
  std::vector<double> cost;        // of each: KL divergence of the predictions, nats a token
};

// What a matrix of `cols` inputs may get: four bits in groups of up to 2 `group` inputs that divide
// it and that the kernels are fast with, or in groups of `group` where none do; and eight bits.
std::vector<BitChoice> bit_choices(int64_t cols, int64_t group);

// Measures the choices of every matrix in `specs` (those of the blocks, and a head) on the
// sequences of `ids`, rounding to nearest. Of a block the divergence is measured where all of its
// matrices have the first choice; what a matrix has of it, with any choice, is as the squared error
// that it alone makes in the block's output. So a model takes choices x matrices of a block +
// layers / 2 forward passes, and not one for each matrix.
struct SensitivityJob {
  Backend& backend;
  ThreadPool& pool;
  const Config& config;
  MatrixReader& reader;
  std::span<const TensorSpec> specs;
  QuantizeSettings settings;  // but bits; the group is bit_choices()'s
  std::span<const int32_t> ids;
  int64_t length = 0;
  std::function<void(int64_t layer)> on_layer;  // about to be measured
  std::function<void()> tick;                   // see Calibration
};
std::vector<Sensitivity> measure_sensitivity(const SensitivityJob& job);

// Which choice each matrix gets, so that the sum of costs is small and the average of bits at most
// `target`: from the fewest bits on, always the step that saves most for its bits. Throws Misused
// naming the fewest bits there are where `target` is below.
std::vector<BitChoice> choose_bits(std::span<const Sensitivity> matrices, double target);

}  // namespace quern
