// Matrix products by outer products (Goto, van de Geijn, "Anatomy of high-performance matrix
// multiplication", 2008): both factors are copied into panels that the tile reads in order, so one
// tile serves every combination of transposed factors.

constexpr int kTileRows = Vec::kLanes == 16 ? 12 : 6;  // 12 x 2 accumulators of 32 registers, or 6 x 2
constexpr int kTileVecs = 2;
constexpr int kTileCols = kTileVecs * Vec::kLanes;

// Sums of a tile: out[i, j] = sum over p of a(i, p) · b[p, j], with a(i, p) at a + i * kRowStep +
// p * kDepthStep and b[p] at b + p * kTileCols.
struct Tile {
  Vec acc[kTileRows][kTileVecs];

  [[gnu::always_inline]] inline void clear() noexcept {
    for (auto& row : acc) {
      for (Vec& v : row) v = Vec::zero();
    }
  }

  template <int64_t kRowStep, int64_t kDepthStep>
  [[gnu::always_inline]] inline void multiply(const float* a, const float* b,
                                              int64_t depth) noexcept {
    for (int64_t p = 0; p < depth; ++p) {
      const Vec left = Vec::load(b), right = Vec::load(b + Vec::kLanes);
#pragma GCC unroll 12
      for (int i = 0; i < kTileRows; ++i) {
        const Vec x = Vec::set1(a[i * kRowStep]);
        acc[i][0] = Vec::fma(x, left, acc[i][0]);
        acc[i][1] = Vec::fma(x, right, acc[i][1]);
      }
      a += kDepthStep;
      b += kTileCols;
    }
  }

  [[gnu::always_inline]] inline void store(float* out, int64_t step) const noexcept {
#pragma GCC unroll 12
    for (int i = 0; i < kTileRows; ++i) {
      acc[i][0].store(out + i * step);
      acc[i][1].store(out + i * step + Vec::kLanes);
    }
  }
  [[gnu::always_inline]] inline void add_to(float* out, int64_t step) const noexcept {
#pragma GCC unroll 12
    for (int i = 0; i < kTileRows; ++i) {
      float* left = out + i * step;
      float* right = left + Vec::kLanes;
      (Vec::load(left) + acc[i][0]).store(left);
      (Vec::load(right) + acc[i][1]).store(right);
    }
  }
};

constexpr int64_t kDepth = 256;           // of a stretch: a panel of `a` stays in the first cache
constexpr int64_t kPanelStep = kDepth + 16;  // rows of a panel keep off each other's cache sets
constexpr int64_t kGemmRows = 8 * kTileRows;
constexpr int64_t kGemmCols = 256;
constexpr int64_t kGemmScratch =
    kGemmRows * kPanelStep + kGemmCols * kDepth + int64_t{kTileRows} * kTileCols;

// b's columns [first, first + cols) of `depth` rows as panels [cols / kTileCols][depth][kTileCols],
// zeros behind the last column.
inline void pack_b(float* panel, const Strided& b, int64_t first_row, int64_t depth, int64_t first,
                   int64_t cols) noexcept {
  for (int64_t col = 0; col < cols; col += kTileCols, panel += depth * kTileCols) {
    const int64_t width = std::min<int64_t>(kTileCols, cols - col);
    const float* from = b.data + first_row * b.row_step + (first + col) * b.col_step;
    if (width < kTileCols) std::fill_n(panel, depth * kTileCols, 0.0f);
    if (b.col_step == 1) {
      for (int64_t p = 0; p < depth; ++p) {
        std::copy_n(from + p * b.row_step, width, panel + p * kTileCols);
      }
      continue;
    }
    for (int64_t j = 0; j < width; ++j) {
      const float* column = from + j * b.col_step;
      for (int64_t p = 0; p < depth; ++p) panel[p * kTileCols + j] = column[p];
    }
  }
}

// a's rows [first, first + rows) of `depth` columns: as rows kPanelStep apart where a's rows are
// contiguous, else as panels [rows / kTileRows][depth][kTileRows]. Either is a plain copy. Rows that
// are not there hold what they held: their sums are not written.
inline void pack_a(float* panel, const Strided& a, int64_t first, int64_t rows, int64_t first_col,
                   int64_t depth) noexcept {
  const float* from = a.data + first * a.row_step + first_col * a.col_step;
  if (a.col_step == 1) {
    for (int64_t i = 0; i < rows; ++i) {
      std::copy_n(from + i * a.row_step, depth, panel + i * kPanelStep);
    }
    return;
  }
  for (int64_t i = 0; i < rows; i += kTileRows, panel += depth * kTileRows) {
    const int64_t height = std::min<int64_t>(kTileRows, rows - i);
    const float* corner = from + i;
    if (height == kTileRows) {
      for (int64_t p = 0; p < depth; ++p) {
        std::copy_n(corner + p * a.col_step, kTileRows, panel + p * kTileRows);
      }
    } else {
      for (int64_t p = 0; p < depth; ++p) {
        std::copy_n(corner + p * a.col_step, height, panel + p * kTileRows);
      }
    }
  }
}

void gemm(const Gemm& g, int64_t m_begin, int64_t m_end, int64_t n_begin, int64_t n_end,
          float* scratch) noexcept {
  float* a_panel = scratch;
  float* b_panel = a_panel + kGemmRows * kPanelStep;
  float* edge = b_panel + kGemmCols * kDepth;
  const bool rows_contiguous = g.a.col_step == 1;
  for (int64_t p = 0; p < g.depth; p += kDepth) {
    const int64_t depth = std::min(kDepth, g.depth - p);
    const bool adds = g.accumulate || p > 0;
    pack_b(b_panel, g.b, p, depth, n_begin, n_end - n_begin);
    for (int64_t m = m_begin; m < m_end; m += kGemmRows) {
      const int64_t rows = std::min(kGemmRows, m_end - m);
      pack_a(a_panel, g.a, m, rows, p, depth);
      for (int64_t i = 0; i < rows; i += kTileRows) {
        for (int64_t n = n_begin; n < n_end; n += kTileCols) {
          const float* b = b_panel + (n - n_begin) * depth;
          Tile tile;
          tile.clear();
          if (rows_contiguous) {
            tile.multiply<kPanelStep, 1>(a_panel + i * kPanelStep, b, depth);
          } else {
            tile.multiply<1, kTileRows>(a_panel + i * depth, b, depth);
          }
          float* out = g.out + (m + i) * g.out_step + n;
          const int64_t height = std::min<int64_t>(kTileRows, rows - i);
          const int64_t width = std::min<int64_t>(kTileCols, n_end - n);
          const bool whole = height == kTileRows && width == kTileCols;
          if (whole && adds) {
            tile.add_to(out, g.out_step);
          } else if (whole) {
            tile.store(out, g.out_step);
          } else {
            tile.store(edge, kTileCols);
            for (int64_t r = 0; r < height; ++r) {
              for (int64_t c = 0; c < width; ++c) {
                float& target = out[r * g.out_step + c];
                target = adds ? target + edge[r * kTileCols + c] : edge[r * kTileCols + c];
              }
            }
          }
          if (g.bias != nullptr && p == 0) {
            for (int64_t r = 0; r < height; ++r) {
              for (int64_t c = 0; c < width; ++c) out[r * g.out_step + c] += g.bias[n + c];
            }
          }
        }
      }
    }
  }
}
