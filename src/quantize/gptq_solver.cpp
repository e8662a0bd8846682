#include "quantize/gptq_solver.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/dtype.h"
#include "core/error.h"
#include "quantize/cholesky.h"

namespace quern {
namespace {

constexpr int64_t kBlock = 128;         // columns between updates of all that follow
constexpr int64_t kHessianRows = 4096;  // tokens summed in float before they are added in double
constexpr int64_t kHessianCols = 512;   // of its lower triangle that are multiplied at once
constexpr int64_t kSquare = 32;         // rows and columns that are mirrored at once

size_t at(int64_t i) { return static_cast<size_t>(i); }

struct Grid {
  float scale;
  float zero;
};

// Scale and zero of some values `stride` floats apart. The midpoint of a symmetric grid is
// 2^(bits-1), its step 2 max|w| / (2^bits - 1).
Grid grid_of(const float* values, int64_t count, const QuantizeSettings& s) {
  const float levels = static_cast<float>((1 << s.bits) - 1);
  float low = 0, high = 0;
  for (int64_t i = 0; i < count; ++i) {
    low = std::min(low, values[i]);
    high = std::max(high, values[i]);
  }
  if (s.symmetric) {
    high = std::max(high, -low);
    low = -high;
  }
  if (low == 0 && high == 0) low = -1, high = 1;
  float scale = (high - low) / levels;
  if (s.half_scales) {
    scale = from_f16(to_f16(scale));
    if (scale == 0) scale = from_f16(1);  // smaller weights than float16 can tell apart
  }
  float zero = s.symmetric ? (levels + 1) / 2 : std::nearbyint(-low / scale);
  if (s.half_scales && zero == 0) {
    // The file stores the zero less one. A grid that begins at 0 gives one level up for that.
    zero = 1;
    scale = from_f16(to_f16(high / (levels - 1)));
    if (scale == 0) scale = from_f16(1);
  }
  return {scale, std::clamp(zero, 0.0f, levels)};
}

float level_of(float value, Grid grid, float levels) {
  return std::clamp(std::nearbyint(value / grid.scale) + grid.zero, 0.0f, levels);
}

void check_scales(const QuantizedMatrix& m, const std::string& name) {
  for (const float scale : m.scales) {
    if (std::isfinite(scale)) continue;
    throw_bad_input(name + " has weights too large for a float16 scale",
                    "they are hardly meant to be so large: see 'quern verify'");
  }
}

QuantizedMatrix blank(int64_t rows, int64_t cols, const QuantizeSettings& s,
                      const std::string& name) {
  const int64_t group = s.group < 0 ? cols : s.group;
  if (group < 1 || group > cols || cols % group != 0) {
    int64_t best = 1;
    for (int64_t g = 2; g <= std::min<int64_t>(128, cols); ++g) {
      if (cols % g == 0) best = g;
    }
    throw_bad_input(fmt::format("{}: groups of {} do not divide its {} inputs", name, group, cols),
                    fmt::format("--group {} would, or --group -1 for one scale a row", best));
  }
  QuantizedMatrix m = {.rows = rows, .cols = cols, .groups = cols / group};
  m.q.resize(at(rows * cols));
  m.scales.resize(at(m.groups * rows));
  m.zeros.resize(at(m.groups * rows));
  m.g_idx.resize(at(cols));
  for (int64_t i = 0; i < cols; ++i) m.g_idx[at(i)] = static_cast<int32_t>(i / group);
  return m;
}

}  // namespace

std::vector<float> QuantizedMatrix::dequantized() const {
  std::vector<float> out(q.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const size_t place = at(g_idx[at(c)] * rows + r);
      out[at(r * cols + c)] =
          scales[place] * static_cast<float>(int{q[at(r * cols + c)]} - int{zeros[place]});
    }
  }
  return out;
}

Hessian::Hessian(ThreadPool& pool, int64_t dim) : pool_(&pool), dim_(dim), sum_(at(dim * dim)) {
  pool.parallel_for(dim, 64, [&](int64_t begin, int64_t end, int) {
    std::fill(sum_.data() + begin * dim, sum_.data() + end * dim, 0.0);
  });
}

void Hessian::add(Backend& backend, ConstRows x, int64_t samples) {
  for (int64_t begin = 0; begin < x.rows; begin += kHessianRows) {
    const ConstRows rows = x.slice(begin, std::min(begin + kHessianRows, x.rows));
    for (int64_t col = 0; col < dim_; col += kHessianCols) {
      const int64_t width = std::min(kHessianCols, dim_ - col);
      part_.assign(at((dim_ - col) * width), 0.0f);
      backend.matmul_backward_weight({part_.data(), dim_ - col, width, width}, {},
                                     rows.columns(col, dim_ - col), rows.columns(col, width));
      pool_->parallel_for(dim_ - col, 64, [&](int64_t first, int64_t last, int) {
        for (int64_t r = first; r < last; ++r) {
          double* sum = sum_.data() + (col + r) * dim_ + col;
          const float* part = part_.data() + r * width;
          for (int64_t c = 0; c < std::min(width, r + 1); ++c) sum[c] += double{part[c]};
        }
      });
    }
  }
  samples_ += samples;
}

Square Hessian::take() && {
  part_ = {};
  const double factor = 2.0 / static_cast<double>(std::max<int64_t>(samples_, 1));
  // In squares of which both halves' lines stay in the first cache.
  pool_->parallel_for(dim_, kSquare, [&](int64_t begin, int64_t end, int) {
    for (int64_t col = 0; col < end; col += kSquare) {
      for (int64_t r = begin; r < end; ++r) {
        for (int64_t c = col; c < std::min(col + kSquare, r + 1); ++c) {
          const double value = sum_[at(r * dim_ + c)] * factor;
          sum_[at(r * dim_ + c)] = value;
          sum_[at(c * dim_ + r)] = value;
        }
      }
    }
  });
  return std::move(sum_);
}

QuantizedMatrix round_to_nearest(ThreadPool& pool, std::span<const float> weight, int64_t rows,
                                 const QuantizeSettings& s, const std::string& name) {
  const int64_t cols = static_cast<int64_t>(weight.size()) / rows;
  QuantizedMatrix m = blank(rows, cols, s, name);
  const int64_t group = cols / m.groups;
  const auto levels = static_cast<float>((1 << s.bits) - 1);
  pool.parallel_for(rows, 16, [&](int64_t first, int64_t last, int) {
    for (int64_t r = first; r < last; ++r) {
      for (int64_t g = 0; g < m.groups; ++g) {
        const float* values = weight.data() + r * cols + g * group;
        const Grid grid = grid_of(values, group, s);
        m.scales[at(g * rows + r)] = grid.scale;
        m.zeros[at(g * rows + r)] = static_cast<uint8_t>(grid.zero);
        if (!std::isfinite(grid.scale)) continue;
        for (int64_t i = 0; i < group; ++i) {
          m.q[at(r * cols + g * group + i)] =
              static_cast<uint8_t>(level_of(values[i], grid, levels));
        }
      }
    }
  });
  check_scales(m, name);
  return m;
}

GptqFactor factorize(ThreadPool& pool, Square h, const QuantizeSettings& s,
                     const std::string& name) {
  const auto n = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(h.size()))));
  GptqFactor f = {.order = std::vector<int64_t>(at(n)), .dead = std::vector<bool>(at(n))};
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) {
    double& d = h[at(i * n + i)];
    if (!std::isfinite(d)) throw_bad_input(name + ": its inputs are not finite");
    f.dead[at(i)] = d == 0;
    if (d == 0) d = 1;
    mean += d / static_cast<double>(n);
  }
  std::iota(f.order.begin(), f.order.end(), int64_t{0});
  if (s.act_order) {
    std::stable_sort(f.order.begin(), f.order.end(),
                     [&](int64_t a, int64_t b) { return h[at(a * n + a)] > h[at(b * n + b)]; });
  }
  f.upper.resize(h.size());
  for (f.damping = s.damping; f.damping <= 10; f.damping *= 10) {
    pool.parallel_for(n, 16, [&](int64_t first, int64_t last, int) {
      for (int64_t i = first; i < last; ++i) {
        const double* from = h.data() + f.order[at(i)] * n;
        for (int64_t j = 0; j < n; ++j) f.upper[at(i * n + j)] = from[f.order[at(j)]];
        f.upper[at(i * n + i)] += f.damping * mean;
      }
    });
    if (inverse_cholesky(pool, f.upper, n)) return f;
    if (f.damping == 0) f.damping = 1e-4;
  }
  throw Error(Kind::Failed, name + ": the second moments of its inputs have no inverse",
              "use more calibration text, or --method rtn");
}

QuantizedMatrix gptq(Backend& backend, ThreadPool& pool, std::span<const float> weight,
                     int64_t rows, const GptqFactor& factor, const QuantizeSettings& s,
                     const std::string& name) {
  const int64_t cols = static_cast<int64_t>(weight.size()) / rows;
  QuantizedMatrix m = blank(rows, cols, s, name);
  const int64_t group = cols / m.groups;
  const auto levels = static_cast<float>((1 << s.bits) - 1);
  const std::vector<int64_t>& order = factor.order;
  const Square& u = factor.upper;

  // Grids that no update changes: of one group over the whole row, or of groups left in place.
  const bool fixed = m.groups == 1 || s.static_groups;
  if (fixed) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t g = 0; g < m.groups; ++g) {
        const Grid grid = grid_of(weight.data() + r * cols + g * group, group, s);
        m.scales[at(g * rows + r)] = grid.scale;
        m.zeros[at(g * rows + r)] = static_cast<uint8_t>(grid.zero);
      }
    }
  } else {
    for (int64_t i = 0; i < cols; ++i) {
      m.g_idx[at(order[at(i)])] = static_cast<int32_t>(i / group);
    }
  }

  std::vector<float> w(weight.size());  // columns in `order`; changes as errors are passed on
  pool.parallel_for(rows, 16, [&](int64_t first, int64_t last, int) {
    for (int64_t r = first; r < last; ++r) {
      for (int64_t i = 0; i < cols; ++i) {
        const int64_t from = order[at(i)];
        w[at(r * cols + i)] = factor.dead[at(from)] ? 0.0f : weight[at(r * cols + from)];
      }
    }
  });
  std::vector<float> errors(at(rows * kBlock));
  std::vector<float> u_block(at(kBlock * kBlock)), u_right;
  for (int64_t begin = 0; begin < cols; begin += kBlock) {
    const int64_t width = std::min(kBlock, cols - begin), rest = cols - begin - width;
    for (int64_t i = 0; i < width; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        u_block[at(i * kBlock + j)] = static_cast<float>(u[at((begin + i) * cols + begin + j)]);
      }
    }
    pool.parallel_for(rows, 8, [&](int64_t first, int64_t last, int) {
      for (int64_t r = first; r < last; ++r) {
        float line[kBlock];  // the block's columns, updated within it
        const float* whole = w.data() + r * cols;
        std::copy_n(whole + begin, width, line);
        float* error = errors.data() + r * kBlock;
        for (int64_t i = 0; i < width; ++i) {
          const int64_t column = begin + i, original = order[at(column)];
          const auto g = static_cast<int64_t>(m.g_idx[at(original)]);
          const size_t place = at(g * rows + r);
          if (!fixed && column % group == 0) {
            // From the weights as they were before this block: as the reference does it.
            const Grid fresh = grid_of(whole + column, group, s);
            m.scales[place] = fresh.scale;
            m.zeros[place] = static_cast<uint8_t>(fresh.zero);
          }
          const Grid grid = {m.scales[place], static_cast<float>(m.zeros[place])};
          const float level = std::isfinite(grid.scale) ? level_of(line[i], grid, levels) : 0;
          m.q[at(r * cols + original)] = static_cast<uint8_t>(level);
          const float* u_row = u_block.data() + i * kBlock;
          error[i] = (line[i] - grid.scale * (level - grid.zero)) / u_row[i];
          for (int64_t j = i; j < width; ++j) line[j] -= error[i] * u_row[j];
          error[i] = -error[i];
        }
      }
    });
    if (rest == 0) break;
    // The columns behind the block: w -= errors · U, a product like any other.
    u_right.resize(at(rest * width));
    for (int64_t j = 0; j < rest; ++j) {
      for (int64_t i = 0; i < width; ++i) {
        u_right[at(j * width + i)] =
            static_cast<float>(u[at((begin + i) * cols + begin + width + j)]);
      }
    }
    const Weight right = {.format = WeightFormat::F32,
                          .rows = rest,
                          .cols = width,
                          .data = reinterpret_cast<const std::byte*>(u_right.data())};
    const MatmulPart part = {{w.data() + begin + width, rows, rest, cols}, &right, {}, true};
    backend.matmul({errors.data(), rows, width, kBlock}, {&part, 1});
  }
  check_scales(m, name);
  return m;
}

Loss weight_loss(std::span<const float> weight, std::span<const float> quantized) {
  Loss loss;
  for (size_t i = 0; i < weight.size(); ++i) {
    const double w = weight[i], d = w - static_cast<double>(quantized[i]);
    loss.lost += d * d;
    loss.all += w * w;
  }
  return loss;
}

Loss output_loss(Backend& backend, std::span<const float> weight, std::span<const float> quantized,
                 std::span<const float> moments, int64_t cols) {
  const int64_t rows = static_cast<int64_t>(weight.size()) / cols;
  const Weight h = {.format = WeightFormat::F32,
                    .rows = cols,
                    .cols = cols,
                    .data = reinterpret_cast<const std::byte*>(moments.data())};
  std::vector<float> product(weight.size());
  const auto energy = [&](std::span<const float> x) {
    const MatmulPart part = {{product.data(), rows, cols, cols}, &h, {}, false};
    backend.matmul({x.data(), rows, cols, cols}, {&part, 1});
    return std::inner_product(x.begin(), x.end(), product.begin(), 0.0);
  };
  std::vector<float> lost(weight.size());
  for (size_t i = 0; i < lost.size(); ++i) lost[i] = weight[i] - quantized[i];
  return {.lost = energy(lost), .all = energy(weight)};
}

}  // namespace quern
