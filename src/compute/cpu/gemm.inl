// Matrix products by outer products (Goto, van de Geijn, "Anatomy of high-performance matrix
// multiplication", 2008): both factors are copied into panels that the tile reads in order, so one
// tile serves every combination of transposed factors.

constexpr int kTileRows = Vec::kLanes == 16 ? 12 : 6;  // 12 x 2 sums in 32 registers, 6 x 2 in 16
constexpr int kTileCols = 2 * Vec::kLanes;

// The sums of a tile of the output.
struct Tile {
  Vec sums[kTileRows][2];

  [[gnu::always_inline]] inline void clear() noexcept {
    for (auto& row : sums) row[0] = row[1] = Vec::zero();
  }

  // sums[i, j] += sum over p of a(i, p) · b[p, j], with a(i, p) at a + i * kRowStep + p * kDepthStep
  // and b[p] at b + p * kTileCols.
  template <int64_t kRowStep, int64_t kDepthStep>
  [[gnu::always_inline]] inline void multiply(const float* a, const float* b,
                                              int64_t depth) noexcept {
    for (int64_t p = 0; p < depth; ++p) {
      const Vec left = Vec::load(b), right = Vec::load(b + Vec::kLanes);
#pragma GCC unroll 12
      for (int i = 0; i < kTileRows; ++i) {
        const Vec x = Vec::set1(a[i * kRowStep]);
        sums[i][0] = Vec::fma(x, left, sums[i][0]);
        sums[i][1] = Vec::fma(x, right, sums[i][1]);
      }
      a += kDepthStep;
      b += kTileCols;
    }
  }

  [[gnu::always_inline]] inline void store(float* out, int64_t step) const noexcept {
#pragma GCC unroll 12
    for (int i = 0; i < kTileRows; ++i) {
      sums[i][0].store(out + i * step);
      sums[i][1].store(out + i * step + Vec::kLanes);
    }
  }
  [[gnu::always_inline]] inline void add_to(float* out, int64_t step) const noexcept {
#pragma GCC unroll 12
    for (int i = 0; i < kTileRows; ++i) {
      float* left = out + i * step;
      float* right = left + Vec::kLanes;
      (Vec::load(left) + sums[i][0]).store(left);
      (Vec::load(right) + sums[i][1]).store(right);
    }
  }
};

inline void copy_floats(float* to, const float* from, int64_t count) noexcept {
  for_lanes(count, [&](int64_t i, int64_t n) {
    if (n == Vec::kLanes) {
      Vec::load(from + i).store(to + i);
    } else {
      Vec::load_n(from + i, n).store_n(to + i, n);
    }
  });
}

// Panels of floats.
struct FloatPanels {
  using Element = float;
  static constexpr int64_t kDepth = 256;           // of a stretch: a panel stays in the first cache
  static constexpr int64_t kRowStep = kDepth + 16;  // its rows keep off each other's cache sets

  static int64_t padded(int64_t depth) noexcept { return depth; }

  // The columns [first, first + cols) of b's rows [first_row, first_row + depth), as panels
  // [cols / kTileCols][depth][kTileCols] with zeros behind the last column.
  static void pack_b(float* panel, const Strided& b, int64_t first_row, int64_t depth,
                     int64_t first, int64_t cols) noexcept {
    for (int64_t col = 0; col < cols; col += kTileCols, panel += depth * kTileCols) {
      const int64_t width = std::min<int64_t>(kTileCols, cols - col);
      const float* from = b.data + first_row * b.row_step + (first + col) * b.col_step;
      if (width < kTileCols) std::fill_n(panel, depth * kTileCols, 0.0f);
      if (b.col_step == 1) {
        for (int64_t p = 0; p < depth; ++p) {
          copy_floats(panel + p * kTileCols, from + p * b.row_step, width);
        }
        continue;
      }
      for (int64_t j = 0; j < width; ++j) {
        const float* column = from + j * b.col_step;
        for (int64_t p = 0; p < depth; ++p) panel[p * kTileCols + j] = column[p];
      }
    }
  }

  // a's rows [first, first + rows), columns [first_col, first_col + depth): where rows are
  // contiguous as rows kRowStep apart, else as panels [rows / kTileRows][depth][kTileRows]; each is
  // a plain copy. Rows past the last hold anything: their sums are not written.
  static void pack_a(float* panel, const Strided& a, int64_t first, int64_t rows,
                     int64_t first_col, int64_t depth) noexcept {
    const float* from = a.data + first * a.row_step + first_col * a.col_step;
    if (a.col_step == 1) {
      for (int64_t i = 0; i < rows; ++i) {
        copy_floats(panel + i * kRowStep, from + i * a.row_step, depth);
      }
      return;
    }
    for (int64_t i = 0; i < rows; i += kTileRows, panel += depth * kTileRows) {
      const int64_t height = std::min<int64_t>(kTileRows, rows - i);
      for (int64_t p = 0; p < depth; ++p) {
        copy_floats(panel + p * kTileRows, from + i + p * a.col_step, height);
      }
    }
  }

  [[gnu::always_inline]] static inline void multiply_rows(Tile& tile, const float* a,
                                                          const float* b, int64_t depth) noexcept {
    tile.multiply<kRowStep, 1>(a, b, depth);
  }
  [[gnu::always_inline]] static inline void multiply_panel(Tile& tile, const float* a,
                                                           const float* b, int64_t depth) noexcept {
    tile.multiply<1, kTileRows>(a, b, depth);
  }
};

constexpr int64_t kGemmRows = 8 * kTileRows;
constexpr int64_t kGemmCols = 384;

template <class Panels>
constexpr int64_t gemm_scratch_floats() noexcept {
  constexpr auto kElements = kGemmRows * Panels::kRowStep + kGemmCols * Panels::kDepth;
  return kElements * int64_t{sizeof(typename Panels::Element)} / int64_t{sizeof(float)} +
         int64_t{kTileRows} * kTileCols;
}

// Writes the part of a tile that lies inside the output.
inline void write_tile(const Gemm& g, const Tile& tile, int64_t row, int64_t col, int64_t height,
                       int64_t width, bool adds, bool with_bias, float* edge) noexcept {
  float* out = g.out + row * g.out_step + col;
  if (height == kTileRows && width == kTileCols) {
    adds ? tile.add_to(out, g.out_step) : tile.store(out, g.out_step);
  } else {
    tile.store(edge, kTileCols);
    for (int64_t r = 0; r < height; ++r) {
      for (int64_t c = 0; c < width; ++c) {
        const float before = adds ? out[r * g.out_step + c] : 0;
        out[r * g.out_step + c] = before + edge[r * kTileCols + c];
      }
    }
  }
  if (!with_bias) return;
  for (int64_t r = 0; r < height; ++r) {
    for (int64_t c = 0; c < width; ++c) out[r * g.out_step + c] += g.bias[col + c];
  }
}

// See TrainingKernels::gemm.
template <class Panels>
void gemm(const Gemm& g, int64_t m_begin, int64_t m_end, int64_t n_begin, int64_t n_end,
          float* scratch) noexcept {
  using Element = typename Panels::Element;
  float* edge = scratch;
  auto* a_panel = reinterpret_cast<Element*>(edge + int64_t{kTileRows} * kTileCols);
  Element* b_panel = a_panel + kGemmRows * Panels::kRowStep;
  const bool rows_contiguous = g.a.col_step == 1;
  for (int64_t p = 0; p < g.depth; p += Panels::kDepth) {
    const int64_t depth = std::min(Panels::kDepth, g.depth - p);
    const int64_t padded = Panels::padded(depth);
    const bool adds = g.accumulate || p > 0, with_bias = g.bias != nullptr && p == 0;
    Panels::pack_b(b_panel, g.b, p, depth, n_begin, n_end - n_begin);
    for (int64_t m = m_begin; m < m_end; m += kGemmRows) {
      const int64_t rows = std::min(kGemmRows, m_end - m);
      Panels::pack_a(a_panel, g.a, m, rows, p, depth);
      for (int64_t i = 0; i < rows; i += kTileRows) {
        for (int64_t n = n_begin; n < n_end; n += kTileCols) {
          const Element* b = b_panel + (n - n_begin) * padded;
          Tile tile;
          tile.clear();
          if (rows_contiguous) {
            Panels::multiply_rows(tile, a_panel + i * Panels::kRowStep, b, padded);
          } else {
            Panels::multiply_panel(tile, a_panel + i * padded, b, padded);
          }
          write_tile(g, tile, m + i, n, std::min<int64_t>(kTileRows, rows - i),
                     std::min<int64_t>(kTileCols, n_end - n), adds, with_bias, edge);
        }
      }
    }
  }
}
