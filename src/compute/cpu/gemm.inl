// Matrix products by outer products (Goto, van de Geijn, "Anatomy of high-performance matrix
// multiplication", 2008): the right factor is copied into panels once for all threads, the left one
// a block of rows at a time, so that one tile serves every combination of transposed factors. What
// the next block will read is asked for while this one is worked on.

constexpr int kTileRows = Vec::kLanes == 16 ? 12 : 6;  // 12 x 2 sums in 32 registers, 6 x 2 in 16
constexpr int kTileCols = 2 * Vec::kLanes;
constexpr int kTurns = Vec::kLanes == 16 ? 2 : 4;
constexpr int64_t kLine = 16;  // floats in a line of the cache

// The sums of a tile of the output.
struct Tile {
  Vec sums[kTileRows][2];

  [[gnu::always_inline]] inline void clear() noexcept { fill(Vec::zero(), Vec::zero()); }
  [[gnu::always_inline]] inline void fill(Vec left, Vec right) noexcept {
#pragma GCC unroll 12
    for (auto& row : sums) {
      row[0] = left;
      row[1] = right;
    }
  }

  // sums[i, j] += sum over p of a(i, p) · b[p, j], with a(i, p) at a + i * kRowStep + p *
  // kDepthStep and b[p] at b + p * kTileCols.
  //
  // Not inlined, and over a copy of the sums: amid the rest of gemm() the compiler runs out of
  // registers and keeps a sum in memory, through the innermost loop.
  template <int64_t kRowStep, int64_t kDepthStep>
  [[gnu::noinline]] void multiply(const float* a, const float* b, int64_t depth) noexcept {
    Vec local[kTileRows][2];
#pragma GCC unroll 32
    for (int i = 0; i < 2 * kTileRows; ++i) local[i / 2][i % 2] = sums[i / 2][i % 2];
    const auto step = [&] {
      const Vec left = Vec::load(b), right = Vec::load(b + Vec::kLanes);
#pragma GCC unroll 12
      for (int i = 0; i < kTileRows; ++i) {
        const Vec x = Vec::set1(a[i * kRowStep]);
        local[i][0] = Vec::fma(x, left, local[i][0]);
        local[i][1] = Vec::fma(x, right, local[i][1]);
      }
      a += kDepthStep;
      b += kTileCols;
    };
    // As in packed_tile: several turns in one keep the multipliers busy.
    for (; depth >= kTurns; depth -= kTurns) {
#pragma GCC unroll 4
      for (int i = 0; i < kTurns; ++i) step();
    }
    for (; depth > 0; --depth) step();
#pragma GCC unroll 32
    for (int i = 0; i < 2 * kTileRows; ++i) sums[i / 2][i % 2] = local[i / 2][i % 2];
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

// The first `count` floats of p and zeros; count may be more than there are lanes, or negative.
inline Vec load_some(const float* p, int64_t count) noexcept {
  if (count >= Vec::kLanes) return Vec::load(p);
  return count <= 0 ? Vec::zero() : Vec::load_n(p, count);
}

// Panels of floats.
struct FloatPanels {
  using Element = float;
  static constexpr int64_t kDepth = 256;  // at most, of a stretch: a panel stays in the first cache
  static constexpr int64_t kRowStep = kDepth + 16;

  static int64_t padded(int64_t depth) noexcept { return depth; }

  // Columns [0, width) of a matrix of `depth` rows as a panel [depth][kTileCols], zeros behind.
  static void pack_b(float* panel, const Strided& b, int64_t depth, int64_t width) noexcept {
    if (b.col_step == 1) {
      for (int64_t p = 0; p < depth; ++p) {
        const float* from = b.data + p * b.row_step;
        for (int64_t j = 0; j < kTileCols; j += Vec::kLanes) {
          load_some(from + j, width - j).store(panel + p * kTileCols + j);
        }
      }
      return;
    }
    for (int64_t p = 0; p < depth; p += Vec::kLanes) {
      const int64_t count = std::min<int64_t>(Vec::kLanes, depth - p);
      for (int64_t half = 0; half < kTileCols; half += Vec::kLanes) {
        Vec block[Vec::kLanes];
        for (int64_t j = 0; j < Vec::kLanes; ++j) {
          const bool there = half + j < width;
          block[j] = there ? load_some(b.data + (half + j) * b.col_step + p, count) : Vec::zero();
        }
        Vec::transpose(block);
        for (int64_t q = 0; q < count; ++q) block[q].store(panel + (p + q) * kTileCols + half);
      }
    }
  }

  // The rows [0, rows) of a matrix of `depth` columns: where rows are contiguous as rows kRowStep
  // apart, else as panels [rows / kTileRows][depth][kTileRows]. `there`: rows that may be read.
  // Rows past `rows` hold anything: their sums are not written.
  static void pack_a(float* panel, const Strided& a, int64_t rows, int64_t depth,
                     int64_t there) noexcept {
    if (a.col_step == 1) {
      for (int64_t i = 0; i < rows; ++i) {
        copy_floats(panel + i * kRowStep, a.data + i * a.row_step, depth);
      }
      return;
    }
    // A vector is wider than the panel: what sticks out is overwritten by the next row.
    for (int64_t p = 0; p < depth; ++p) {
      const bool last = p + 1 == depth;
      for (int64_t i = 0; i < rows; i += kTileRows) {
        const Vec values = load_some(a.data + i + p * a.col_step, there - i);
        float* to = panel + i * depth + p * kTileRows;
        last ? values.store_n(to, kTileRows) : values.store(to);
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

// Rows of `a` at a time, which stay in the second cache.
constexpr int64_t kGemmRows = 96;
static_assert(kGemmRows % kTileRows == 0);
constexpr int64_t kGemmBlockBytes = 512 << 10;  // of panels, which stay in the last cache

template <class Panels>
constexpr int64_t gemm_scratch_floats() noexcept {
  constexpr auto kElements = kGemmRows * Panels::kRowStep + 64;
  return kElements * int64_t{sizeof(typename Panels::Element)} / int64_t{sizeof(float)} +
         int64_t{kTileRows} * kTileCols;
}

// Stretches of the depth are of one even length, the last shorter: a function of the depth alone.
template <class Panels>
int64_t stretch_of(int64_t depth) noexcept {
  const int64_t count = std::max<int64_t>((depth + Panels::kDepth - 1) / Panels::kDepth, 1);
  return (depth + 2 * count - 1) / (2 * count) * 2;
}

// Where the panels of the stretch that begins at row p start. Those of a stretch lie side by side,
// each [depth of the stretch, kTileCols].
template <class Panels>
typename Panels::Element* stretch_panels(std::byte* packed, int64_t panels, int64_t p) noexcept {
  return reinterpret_cast<typename Panels::Element*>(packed) + p * panels * kTileCols;
}

// See TrainingKernels.
template <class Panels>
int64_t packed_bytes(int64_t panels, int64_t depth) noexcept {
  return panels * kTileCols * Panels::padded(depth) * int64_t{sizeof(typename Panels::Element)};
}

template <class Panels>
int64_t block_panels(int64_t depth) noexcept {
  const int64_t bytes =
      kTileCols * stretch_of<Panels>(depth) * int64_t{sizeof(typename Panels::Element)};
  return std::max<int64_t>(kGemmBlockBytes / bytes, 1);
}

template <class Panels>
void pack_panel(std::byte* packed, int64_t panels, int64_t panel, const Strided& b, int64_t depth,
                int64_t width) noexcept {
  const int64_t step = stretch_of<Panels>(depth);
  for (int64_t p = 0; p < depth; p += step) {
    const int64_t rows = std::min(step, depth - p);
    Panels::pack_b(
        stretch_panels<Panels>(packed, panels, p) + panel * kTileCols * Panels::padded(rows),
        {b.data + p * b.row_step, b.row_step, b.col_step}, rows, width);
  }
}

// Asks for a block of `a` line by line.
struct Prefetcher {
  const float* line = nullptr;
  int64_t lines = 0, width = 0;  // of a line of the matrix: left in this one, in each
  int64_t rows = 0, step = 0;

  Prefetcher(const Strided& a, int64_t rows_wanted, int64_t depth) noexcept {
    const bool contiguous = a.col_step == 1;
    line = a.data;
    rows = contiguous ? rows_wanted : depth;
    step = contiguous ? a.row_step : a.col_step;
    lines = width = ((contiguous ? depth : rows_wanted) + kLine - 1) / kLine;
  }
  [[gnu::always_inline]] inline void next(int64_t count) noexcept {
    for (; count > 0 && rows > 0; --count) {
      __builtin_prefetch(line + (width - lines) * kLine, 0, 2);
      if (--lines == 0) {
        lines = width;
        line += step;
        --rows;
      }
    }
  }
  int64_t total() const noexcept { return rows * width; }
};

// Writes the part of a tile that lies inside the output.
inline void write_edge(float* out, int64_t step, const Tile& tile, int64_t height, int64_t width,
                       bool adds, float* edge) noexcept {
  tile.store(edge, kTileCols);
  for (int64_t r = 0; r < height; ++r) {
    for (int64_t c = 0; c < width; ++c) {
      const float before = adds ? out[r * step + c] : 0;
      out[r * step + c] = before + edge[r * kTileCols + c];
    }
  }
}

// What the stretch of the depth that begins at `p` adds to the output. A panel stays in the first
// cache while a block of rows, which stays in the second, passes by.
template <class Panels>
void gemm_stretch(const Gemm& g, int64_t p, int64_t m_begin, int64_t m_end, int64_t panel_begin,
                  int64_t panel_end, float* scratch) noexcept {
  using Element = typename Panels::Element;
  float* edge = scratch;
  auto* a_block = reinterpret_cast<Element*>(edge + int64_t{kTileRows} * kTileCols);
  const bool rows_contiguous = g.a.col_step == 1;
  const int64_t step = stretch_of<Panels>(g.depth);
  const int64_t depth = std::min(step, g.depth - p), padded = Panels::padded(depth);
  const Element* panels = stretch_panels<Panels>(g.packed, g.panels, p);
  const auto block_of_a = [&](int64_t m, int64_t from) {
    return Strided{g.a.data + m * g.a.row_step + from * g.a.col_step, g.a.row_step, g.a.col_step};
  };
  for (int64_t m = m_begin; m < m_end; m += kGemmRows) {
    const int64_t rows = std::min(kGemmRows, m_end - m);
    Panels::pack_a(a_block, block_of_a(m, p), rows, depth, g.m - m);
    // The block after this one: of the same stretch, or the first of the next.
    const bool last = m + kGemmRows >= m_end;
    const int64_t next_m = last ? m_begin : m + kGemmRows, next_p = last ? p + step : p;
    Prefetcher ahead(block_of_a(next_m, next_p),
                     next_p < g.depth ? std::min(kGemmRows, m_end - next_m) : 0,
                     std::min(step, g.depth - next_p));
    const int64_t tiles = (rows + kTileRows - 1) / kTileRows * (panel_end - panel_begin);
    const int64_t lines = ahead.total() / tiles + 1;
    const GemmPart* part = g.parts.data();
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
      while (panel >= part->first_panel + (part->n + kTileCols - 1) / kTileCols) ++part;
      const int64_t col = (panel - part->first_panel) * kTileCols;
      const int64_t width = std::min<int64_t>(kTileCols, part->n - col);
      const Element* b = panels + panel * kTileCols * padded;
      const bool adds = part->accumulate || p > 0;
      for (int64_t i = 0; i < rows; i += kTileRows) {
        const int64_t height = std::min<int64_t>(kTileRows, rows - i);
        float* out = part->out + (m + i) * part->out_step + col;
        for (int64_t r = 0; r < height; ++r) {
          __builtin_prefetch(out + r * part->out_step, 1, 3);
          __builtin_prefetch(out + r * part->out_step + kTileCols - 1, 1, 3);
        }
        ahead.next(lines);
        Tile tile;
        if (p == 0 && part->bias != nullptr) {
          tile.fill(load_some(part->bias + col, width),
                    load_some(part->bias + col + Vec::kLanes, width - Vec::kLanes));
        } else {
          tile.clear();
        }
        if (rows_contiguous) {
          Panels::multiply_rows(tile, a_block + i * Panels::kRowStep, b, padded);
        } else {
          Panels::multiply_panel(tile, a_block + i * padded, b, padded);
        }
        if (height < kTileRows || width < kTileCols) {
          write_edge(out, part->out_step, tile, height, width, adds, edge);
        } else if (adds) {
          tile.add_to(out, part->out_step);
        } else {
          tile.store(out, part->out_step);
        }
      }
    }
  }
}

template <class Panels>
void gemm(const Gemm& g, int64_t m_begin, int64_t m_end, int64_t panel_begin, int64_t panel_end,
          float* scratch) noexcept {
  for (int64_t p = 0; p < g.depth; p += stretch_of<Panels>(g.depth)) {
    gemm_stretch<Panels>(g, p, m_begin, m_end, panel_begin, panel_end, scratch);
  }
}

template <class Panels>
constexpr GemmKernels gemm_table() noexcept {
  return {
      .pack = pack_panel<Panels>,
      .packed_bytes = packed_bytes<Panels>,
      .panel_cols = kTileCols,
      .gemm = gemm<Panels>,
      .tile_rows = kTileRows,
      .block_panels = block_panels<Panels>,
      .scratch_floats = gemm_scratch_floats<Panels>(),
  };
}
