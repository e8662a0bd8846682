// One matrix to few bits: rounded to nearest, or by GPTQ (Frantar et al. 2022), which spreads each
// column's error over the columns that are still to come, as the inputs' second moments say.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "compute/backend.h"
#include "core/huge_pages.h"
#include "core/thread_pool.h"

namespace quern {

struct QuantizeSettings {
  int bits = 4;                // 4 or 8
  int64_t group = 128;         // inputs that share a scale; -1 for all
  bool symmetric = true;       // the zero is in the middle
  bool act_order = false;      // columns in falling order of diag(H); groups then follow that order
  bool static_groups = false;  // scales from the weights before any update, groups left in place
  double damping = 0.01;       // of the mean of diag(H), added to it
  // As a file will hold them: scales rounded to float16 first, and no zero of 0.
  bool half_scales = true;
};

// What a matrix became: weight[o, i] = scale[g, o] · (q[o, i] - zero[g, o]), g = g_idx[i].
struct QuantizedMatrix {
  int64_t rows = 0, cols = 0, groups = 0;
  std::vector<uint8_t> q;      // [rows, cols]
  std::vector<float> scales;   // [groups, rows]
  std::vector<uint8_t> zeros;  // [groups, rows]
  std::vector<int32_t> g_idx;  // [cols]

  // The matrix as floats [rows, cols].
  std::vector<float> dequantized() const;
};

// A square matrix of what goes into a large one: a gigabyte for 11,008 inputs. New elements hold
// anything.
using Square = std::vector<double, RawHugePages<double>>;

// Second moments of a matrix's inputs: H = 2 / samples · sum over all tokens of x xᵀ, summed in
// double.
class Hessian {
 public:
  Hessian(ThreadPool& pool, int64_t dim);
  // Inputs of `samples` sequences: [tokens, dim]. Few calls with many tokens are fastest.
  void add(Backend& backend, ConstRows x, int64_t samples);
  int64_t dim() const noexcept { return dim_; }
  int64_t samples() const noexcept { return samples_; }
  // [dim, dim]. The sum itself, scaled in place: a second copy would be large.
  Square take() &&;

 private:
  ThreadPool* pool_;
  int64_t dim_;
  int64_t samples_ = 0;
  Square sum_;               // its lower triangle
  std::vector<float> part_;  // what some columns of it are about to grow by
};

// `weight` [rows, cols] must be finite; `name` is for messages. Throws BadInput where the groups do
// not divide the columns, or a scale is beyond float16.
QuantizedMatrix round_to_nearest(ThreadPool& pool, std::span<const float> weight, int64_t rows,
                                 const QuantizeSettings& settings, const std::string& name);

// What GPTQ needs to know of a matrix's inputs. It serves every matrix that takes the same ones.
struct GptqFactor {
  Square upper;                // U of H⁻¹ = Uᵀ U, rows and columns in `order`
  std::vector<int64_t> order;  // [cols], in which columns are taken
  std::vector<bool> dead;      // [cols]: inputs that are never used, whose columns become 0
  double damping = 0;          // that it took: more than was asked for where H is singular
};

// `hessian`: [cols, cols], symmetric; it is consumed. Where H is singular the damping is raised
// tenfold until it is not; throws Failed where even adding its mean does not help.
GptqFactor factorize(ThreadPool& pool, Square hessian, const QuantizeSettings& settings,
                     const std::string& name);

QuantizedMatrix gptq(Backend& backend, ThreadPool& pool, std::span<const float> weight,
                     int64_t rows, const GptqFactor& factor, const QuantizeSettings& settings,
                     const std::string& name);

// Of a sum of squares, how much was lost.
struct Loss {
  double lost = 0, all = 0;

  double share() const noexcept { return all > 0 ? lost / all : 0; }
  Loss& operator+=(const Loss& more) noexcept {
    lost += more.lost;
    all += more.all;
    return *this;
  }
};

// Of the weights W, whose quantized form computes with Q: sum of (W - Q)² and of W².
Loss weight_loss(std::span<const float> weight, std::span<const float> quantized);

// Of the outputs W x: sum of ((W - Q) x)² and of (W x)², by the second moments of x [cols, cols].
Loss output_loss(Backend& backend, std::span<const float> weight, std::span<const float> quantized,
                 std::span<const float> moments, int64_t cols);

}  // namespace quern
