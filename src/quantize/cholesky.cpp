#include "quantize/cholesky.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "compute/cpu/training_kernels.h"

namespace quern {
namespace {

using cpu::kPanelDoubles;

constexpr int64_t kPanel = cpu::kDepthDoubles;  // rows or columns that are worked on at once
constexpr int64_t kCols = 256;  // of a product: with kPanel rows they stay in the second cache

size_t at(int64_t i) { return static_cast<size_t>(i); }

class Factorization {
 public:
  Factorization(ThreadPool& pool, double* h, int64_t n)
      : kernels_(cpu::training_kernels(cpu::chosen_isa())), pool_(pool), h_(h), n_(n) {}

  // L of H = L Lᵀ, in the lower triangle. The upper one changes, too.
  bool factorize() {
    for (int64_t begin = 0; begin < n_; begin += kPanel) {
      const int64_t end = std::min(begin + kPanel, n_);
      if (!factorize_diagonal(begin, end)) return false;
      pool_.parallel_for(n_ - end, 16, [&](int64_t first, int64_t last, int) {
        for (int64_t r = end + first; r < end + last; ++r) solve_row(row(r), begin, end);
      });
      update_behind(begin, end);
    }
    return true;
  }

  // L⁻¹ in place of L: row by row of blocks, M[J, <J] = -L[J, J]⁻¹ (L[J, <J] M[<J, <J]).
  void invert() {
    for (int64_t r = 0; r < n_; ++r) std::fill(row(r) + r + 1, row(r) + n_, 0.0);
    std::vector<double> left;  // [block][rows][kPanel]
    for (int64_t begin = 0; begin < n_; begin += kPanel) {
      const int64_t end = std::min(begin + kPanel, n_), rows = end - begin;
      left.resize(at(rows * begin));
      std::vector<double> diagonal(at(rows * rows));
      for (int64_t r = 0; r < rows; ++r) {
        double* from = row(begin + r);
        for (int64_t k = 0; k < begin; k += kPanel) {
          std::copy_n(from + k, kPanel, left.begin() + k * rows + r * kPanel);
        }
        std::copy_n(from + begin, rows, diagonal.begin() + r * rows);
        std::fill_n(from, end, 0.0);
        from[begin + r] = 1;
      }
      const int64_t chunks = (begin + kCols - 1) / kCols;
      pool_.parallel_for(chunks, 1, [&](int64_t first, int64_t last, int) {
        std::vector<double> right(at(kPanel * kCols));
        for (int64_t chunk = first; chunk < last; ++chunk) {
          const int64_t c = chunk * kCols, cols = std::min(kCols, begin - c);
          for (int64_t k = c / kPanel * kPanel; k < begin; k += kPanel) {
            double* to = right.data();
            for (int64_t j = 0; j < cols; j += kPanelDoubles) {
              const int64_t width = std::min(kPanelDoubles, cols - j);
              for (int64_t i = 0; i < kPanel; ++i, to += kPanelDoubles) {
                std::copy_n(row(k + i) + c + j, width, to);
              }
            }
            kernels_.subtract_product(row(begin) + c, n_, left.data() + k * rows, right.data(),
                                      rows, kPanel, cols);
          }
          solve_columns(diagonal, begin, rows, c, cols);
        }
      });
      solve_columns(diagonal, begin, rows, begin, rows);
    }
  }

 private:
  double* row(int64_t r) const { return h_ + r * n_; }

  bool factorize_diagonal(int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      double* line = row(j);
      solve_row(line, begin, j);
      double square = line[j];
      for (int64_t k = begin; k < j; ++k) square -= line[k] * line[k];
      if (!(square > 0) || !std::isfinite(square)) return false;
      line[j] = std::sqrt(square);
    }
    return true;
  }

  // Columns [begin, end) of a row of L, from the rows above that are done.
  void solve_row(double* line, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const double* above = row(i);
      double sum = line[i];
      for (int64_t k = begin; k < i; ++k) sum -= line[k] * above[k];
      line[i] = sum / above[i];
    }
  }

  // What follows a panel: H[r, c] -= sum over the panel's k of L[r, k] L[c, k].
  void update_behind(int64_t begin, int64_t end) {
    const int64_t width = n_ - end, depth = end - begin;
    const int64_t panels = (width + kPanelDoubles - 1) / kPanelDoubles;
    std::vector<double> turned(at(panels * kPanelDoubles * depth));
    for (int64_t c = 0; c < width; ++c) {
      double* to = turned.data() + c / kPanelDoubles * kPanelDoubles * depth + c % kPanelDoubles;
      for (int64_t k = 0; k < depth; ++k) to[k * kPanelDoubles] = row(end + c)[begin + k];
    }
    pool_.parallel_for((width + kPanel - 1) / kPanel, 1, [&](int64_t first, int64_t last, int) {
      double left[kPanel * kPanel];
      for (int64_t block = first; block < last; ++block) {
        const int64_t r = block * kPanel, rows = std::min(kPanel, width - r);
        for (int64_t i = 0; i < rows; ++i) {
          std::copy_n(row(end + r + i) + begin, depth, left + i * kPanel);
        }
        kernels_.subtract_product(row(end + r) + end, n_, left, turned.data(), rows, depth,
                                  r + rows);
      }
    });
  }

  // Columns [c, c + cols) of the rows from `begin` on, multiplied by the inverse of a triangle.
  void solve_columns(const std::vector<double>& triangle, int64_t begin, int64_t rows, int64_t c,
                     int64_t cols) {
    for (int64_t r = 0; r < rows; ++r) {
      double* out = row(begin + r) + c;
      for (int64_t k = 0; k < r; ++k) {
        const double factor = triangle[at(r * rows + k)];
        const double* done = row(begin + k) + c;
        for (int64_t i = 0; i < cols; ++i) out[i] -= factor * done[i];
      }
      const double scale = 1 / triangle[at(r * rows + r)];
      for (int64_t i = 0; i < cols; ++i) out[i] *= scale;
    }
  }

  const cpu::TrainingKernels& kernels_;
  ThreadPool& pool_;
  double* h_;
  int64_t n_;
};

}  // namespace

// With J turning the order of rows and columns round, J H J = L Lᵀ gives H = V Vᵀ for the upper
// V = J L J, so that U = V⁻¹ is upper and H⁻¹ = Uᵀ U: one factorization and the inverse of a
// triangle, where the definition takes two and a product.
bool inverse_cholesky(ThreadPool& pool, std::span<double> h, int64_t n) {
  std::reverse(h.begin(), h.end());  // J H J
  Factorization factorization(pool, h.data(), n);
  if (!factorization.factorize()) return false;
  factorization.invert();
  std::reverse(h.begin(), h.end());  // U = J M J
  return true;
}

}  // namespace quern
