#include "quantize/cholesky.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "compute/cpu/training_kernels.h"

namespace quern {
namespace {

using cpu::kPanelDoubles;

constexpr int64_t kPanel = cpu::kDepthDoubles;  // rows or columns that are worked on at once
constexpr int64_t kBlock = 4 * kPanel;  // of those, before the rest of the matrix is read again
constexpr int64_t kCols = 256;  // of a product: with kPanel rows they stay in the second cache

size_t at(int64_t i) { return static_cast<size_t>(i); }

class Factorization {
 public:
  Factorization(ThreadPool& pool, double* h, int64_t n)
      : kernels_(cpu::training_kernels(cpu::chosen_isa())), pool_(pool), h_(h), n_(n) {}

  // L of H = L Lᵀ, in the lower triangle. The upper one changes, too.
  bool factorize() {
    for (int64_t block = 0; block < n_; block += kBlock) {
      const int64_t block_end = std::min(block + kBlock, n_);
      for (int64_t begin = block; begin < block_end; begin += kPanel) {
        const int64_t end = std::min(begin + kPanel, block_end);
        if (!factorize_diagonal(begin, end)) return false;
        pool_.parallel_for(n_ - end, 16, [&](int64_t first, int64_t last, int) {
          for (int64_t r = end + first; r < end + last; ++r) solve_row(row(r), begin, end);
        });
        update({begin, end}, {end, block_end});
      }
      update({block, block_end}, {block_end, n_});
    }
    return true;
  }

  // L⁻¹ in place of L: row by row of blocks, M[J, <J] = -L[J, J]⁻¹ (L[J, <J] M[<J, <J]), and within
  // a block by panels in the same way.
  void invert() {
    for (int64_t r = 0; r < n_; ++r) std::fill(row(r) + r + 1, row(r) + n_, 0.0);
    std::vector<double> left;  // the block's rows of L: [panel][rows][kPanel]
    for (int64_t begin = 0; begin < n_; begin += kBlock) {
      const int64_t end = std::min(begin + kBlock, n_), rows = end - begin;
      left.assign(at((rows + kPanel - 1) / kPanel * kPanel * rows + begin * rows), 0.0);
      for (int64_t r = 0; r < rows; ++r) {
        double* from = row(begin + r);
        for (int64_t k = 0; k <= begin + r; k += kPanel) {
          std::copy_n(from + k, std::min(kPanel, begin + r + 1 - k),
                      left.begin() + k * rows + r * kPanel);
        }
        std::fill_n(from, end, 0.0);
        from[begin + r] = 1;
      }
      pool_.parallel_for((end + kCols - 1) / kCols, 1, [&](int64_t first, int64_t last, int) {
        std::vector<double> right(at(kPanel * kCols));
        for (int64_t chunk = first; chunk < last; ++chunk) {
          const int64_t c = chunk * kCols, cols = std::min(kCols, end - c);
          for (int64_t k = c / kPanel * kPanel; k < end; k += kPanel) {
            const double* panel = left.data() + k * rows;
            const int64_t depth = std::min(kPanel, end - k), done = std::max(k - begin, int64_t{0});
            if (k >= begin) solve_columns(panel + done * kPanel, k, depth, c, cols);
            const int64_t after = k >= begin ? done + depth : 0;
            if (after == rows) break;
            pack_right(right, k, c, cols);
            kernels_.subtract_product(row(begin + after) + c, n_, panel + after * kPanel,
                                      right.data(), rows - after, kPanel, cols);
          }
        }
      });
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

  struct Range {
    int64_t begin, end;

    int64_t size() const noexcept { return end - begin; }
  };

  // H[r, c] -= sum over k of L[r, k] L[c, k], for the columns c and all rows from c on.
  void update(Range k, Range c) {
    if (c.size() == 0) return;
    const int64_t col_panels = (c.size() + kPanelDoubles - 1) / kPanelDoubles;
    const int64_t turned_rows = col_panels * kPanelDoubles;
    std::vector<double> turned(at(turned_rows * k.size()));  // [panel of k][of c][k][c]
    pool_.parallel_for(col_panels, 1, [&](int64_t first, int64_t last, int) {
      for (int64_t col = first * kPanelDoubles; col < std::min(last * kPanelDoubles, c.size());
           ++col) {
        for (int64_t p = k.begin; p < k.end; p += kPanel) {
          const int64_t depth = std::min(kPanel, k.end - p);
          double* to = turned.data() + (p - k.begin) * turned_rows +
                       col / kPanelDoubles * kPanelDoubles * depth + col % kPanelDoubles;
          for (int64_t i = 0; i < depth; ++i) to[i * kPanelDoubles] = row(c.begin + col)[p + i];
        }
      }
    });
    const int64_t height = n_ - c.begin;
    pool_.parallel_for((height + kPanel - 1) / kPanel, 1, [&](int64_t first, int64_t last, int) {
      std::vector<double> left(at(kPanel * kBlock));  // [panel of k][rows][kPanel]
      for (int64_t chunk = first; chunk < last; ++chunk) {
        const int64_t r = chunk * kPanel, rows = std::min(kPanel, height - r);
        for (int64_t p = 0; p < k.size(); p += kPanel) {
          for (int64_t i = 0; i < rows; ++i) {
            std::copy_n(row(c.begin + r + i) + k.begin + p, std::min(kPanel, k.size() - p),
                        left.data() + p * kPanel + i * kPanel);
          }
        }
        const int64_t width = std::min(c.size(), r + rows);
        for (int64_t col = 0; col < width; col += kCols) {
          for (int64_t p = 0; p < k.size(); p += kPanel) {
            const int64_t depth = std::min(kPanel, k.size() - p);
            kernels_.subtract_product(row(c.begin + r) + c.begin + col, n_,
                                      left.data() + p * kPanel,
                                      turned.data() + p * turned_rows + col * depth, rows, depth,
                                      std::min(kCols, width - col));
          }
        }
      }
    });
  }

  // Rows [k, k + kPanel), columns [c, c + cols) as panels of a right factor.
  void pack_right(std::vector<double>& right, int64_t k, int64_t c, int64_t cols) const {
    for (int64_t i = 0; i < kPanel; ++i) {
      const double* from = row(k + i) + c;
      double* to = right.data() + i * kPanelDoubles;
      for (int64_t j = 0; j < cols; j += kPanelDoubles) {
        std::copy_n(from + j, std::min(kPanelDoubles, cols - j), to + j * kPanel);
      }
    }
  }

  // Columns [c, c + cols) of the rows from `begin` on, multiplied by the inverse of a triangle
  // whose rows are kPanel apart.
  void solve_columns(const double* triangle, int64_t begin, int64_t rows, int64_t c, int64_t cols) {
    for (int64_t r = 0; r < rows; ++r) {
      double* out = row(begin + r) + c;
      for (int64_t k = 0; k < r; ++k) {
        const double factor = triangle[r * kPanel + k];
        const double* done = row(begin + k) + c;
        for (int64_t i = 0; i < cols; ++i) out[i] -= factor * done[i];
      }
      const double scale = 1 / triangle[r * kPanel + r];
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
