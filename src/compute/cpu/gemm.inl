// Matrix products by outer products (Goto, van de Geijn, "Anatomy of high-performance matrix
// multiplication", 2008): both factors are copied into panels once for all threads, so that one tile
// serves every combination of transposed factors.

constexpr int kTileRows = Vec::kLanes == 16 ? 12 : 6;  // 12 x 2 sums in 32 registers, 6 x 2 in 16
constexpr int kTileCols = 2 * Vec::kLanes;
constexpr int kTurns = Vec::kLanes == 16 ? 2 : 4;

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

// The first `count` floats of p and zeros; count may be more than there are lanes, or negative.
inline Vec load_some(const float* p, int64_t count) noexcept {
  if (count >= Vec::kLanes) return Vec::load(p);
  return count <= 0 ? Vec::zero() : Vec::load_n(p, count);
}

// Of a panel: a tile takes so long that what is done around it hardly counts. Its factors come out
// of the second cache and the last one fast enough.
constexpr int64_t kDepthFloats = 768;

// Panels of floats.
struct FloatPanels {
  using Element = float;
  static constexpr int64_t kDepth = kDepthFloats;  // at most, of a stretch

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

  // The rows [0, height) of a matrix of `depth` columns as panels [depth][kTileRows], zeros behind.
  // A vector is wider than the panel: what sticks out is overwritten by the next one.
  static void pack_a(float* panels, const Strided& a, int64_t depth, int64_t height) noexcept {
    const auto put = [&](int64_t row, int64_t p, Vec values) {
      float* to = panels + row * depth + p * kTileRows;
      p + 1 == depth ? values.store_n(to, kTileRows) : values.store(to);
    };
    if (a.col_step != 1) {
      for (int64_t p = 0; p < depth; ++p) {
        for (int64_t row = 0; row < height; row += kTileRows) {
          put(row, p, load_some(a.data + row + p * a.col_step, height - row));
        }
      }
      return;
    }
    for (int64_t row = 0; row < height; row += kTileRows) {
      for (int64_t p = 0; p < depth; p += Vec::kLanes) {
        const int64_t count = std::min<int64_t>(Vec::kLanes, depth - p);
        Vec block[Vec::kLanes];
        for (int64_t i = 0; i < Vec::kLanes; ++i) {
          const bool there = i < kTileRows && row + i < height;
          block[i] =
              there ? load_some(a.data + (row + i) * a.row_step + p, count) : Vec::zero();
        }
        Vec::transpose(block);
        for (int64_t q = 0; q < count; ++q) put(row, p + q, block[q]);
      }
    }
  }

  [[gnu::always_inline]] static inline void multiply(Tile& tile, const float* a, const float* b,
                                                     int64_t depth) noexcept {
    tile.multiply<1, kTileRows>(a, b, depth);
  }
};

constexpr int64_t kGemmBlockBytes = 2 << 20;  // of panels of the right factor; see gemm_stretch

// Stretches of the depth are of one even length, the last shorter: a function of the depth alone.
template <class Panels>
int64_t stretch_of(int64_t depth) noexcept {
  const int64_t count = std::max<int64_t>((depth + Panels::kDepth - 1) / Panels::kDepth, 1);
  return (depth + 2 * count - 1) / (2 * count) * 2;
}

// Where the panels of the stretch that begins at row p start, `lines` rows or columns in all. Those
// of a stretch lie side by side.
template <class Panels>
typename Panels::Element* stretch_panels(std::byte* packed, int64_t lines, int64_t p) noexcept {
  return reinterpret_cast<typename Panels::Element*>(packed) + p * lines;
}

// See GemmKernels.
template <class Panels>
int64_t packed_bytes(int64_t lines, int64_t depth) noexcept {
  return lines * Panels::padded(depth) * int64_t{sizeof(typename Panels::Element)};
}

template <class Panels>
int64_t block_panels(int64_t depth) noexcept {
  return std::max<int64_t>(
      kGemmBlockBytes / packed_bytes<Panels>(kTileCols, stretch_of<Panels>(depth)), 1);
}

template <class Panels>
void pack_right(const Gemm& g, int64_t panel, const Strided& b, int64_t width) noexcept {
  const int64_t step = stretch_of<Panels>(g.depth);
  for (int64_t p = 0; p < g.depth; p += step) {
    const int64_t depth = std::min(step, g.depth - p);
    Panels::pack_b(stretch_panels<Panels>(g.right, g.panels * kTileCols, p) +
                       panel * kTileCols * Panels::padded(depth),
                   {b.data + p * b.row_step, b.row_step, b.col_step}, depth, width);
  }
}

template <class Panels>
void pack_left(const Gemm& g, int64_t tile, const Strided& a, int64_t height) noexcept {
  const int64_t step = stretch_of<Panels>(g.depth);
  for (int64_t p = 0; p < g.depth; p += step) {
    const int64_t depth = std::min(step, g.depth - p);
    Panels::pack_a(stretch_panels<Panels>(g.left, g.tiles * kTileRows, p) +
                       tile * kTileRows * Panels::padded(depth),
                   {a.data + p * a.col_step, a.row_step, a.col_step}, depth, height);
  }
}

// Writes the part of a tile that lies inside the output.
inline void write_edge(float* out, int64_t step, const Tile& tile, int64_t height, int64_t width,
                       bool adds) noexcept {
  alignas(64) float edge[kTileRows * kTileCols];
  tile.store(edge, kTileCols);
  for (int64_t r = 0; r < height; ++r) {
    for (int64_t c = 0; c < width; ++c) {
      const float before = adds ? out[r * step + c] : 0;
      out[r * step + c] = before + edge[r * kTileCols + c];
    }
  }
}

// What the stretch of the depth that begins at `p` adds to the output. A left panel stays in the
// second cache while a block of right ones, which stays in the last, passes by.
template <class Panels>
void gemm_stretch(const Gemm& g, int64_t p, int64_t tile_begin, int64_t tile_end,
                  int64_t panel_begin, int64_t panel_end) noexcept {
  using Element = typename Panels::Element;
  const int64_t depth =
      Panels::padded(std::min(stretch_of<Panels>(g.depth), g.depth - p));
  const Element* left = stretch_panels<Panels>(g.left, g.tiles * kTileRows, p);
  const Element* right = stretch_panels<Panels>(g.right, g.panels * kTileCols, p);
  for (int64_t t = tile_begin; t < tile_end; ++t) {
    const Element* a = left + t * kTileRows * depth;
    const int64_t height = std::min<int64_t>(kTileRows, g.m - t * kTileRows);
    const GemmPart* part = g.parts.data();
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
      while (panel >= part->first_panel + (part->n + kTileCols - 1) / kTileCols) ++part;
      const int64_t col = (panel - part->first_panel) * kTileCols;
      const int64_t width = std::min<int64_t>(kTileCols, part->n - col);
      const bool adds = part->accumulate || p > 0;
      float* out = part->out + t * kTileRows * part->out_step + col;
      for (int64_t r = 0; r < height; ++r) {
        __builtin_prefetch(out + r * part->out_step, 1, 3);
        __builtin_prefetch(out + r * part->out_step + kTileCols - 1, 1, 3);
      }
      Tile tile;
      if (p == 0 && part->bias != nullptr) {
        tile.fill(load_some(part->bias + col, width),
                  load_some(part->bias + col + Vec::kLanes, width - Vec::kLanes));
      } else {
        tile.clear();
      }
      Panels::multiply(tile, a, right + panel * kTileCols * depth, depth);
      if (height < kTileRows || width < kTileCols) {
        write_edge(out, part->out_step, tile, height, width, adds);
      } else if (adds) {
        tile.add_to(out, part->out_step);
      } else {
        tile.store(out, part->out_step);
      }
    }
  }
}

template <class Panels>
void gemm(const Gemm& g, int64_t tile_begin, int64_t tile_end, int64_t panel_begin,
          int64_t panel_end) noexcept {
  for (int64_t p = 0; p < g.depth; p += stretch_of<Panels>(g.depth)) {
    gemm_stretch<Panels>(g, p, tile_begin, tile_end, panel_begin, panel_end);
  }
}

template <class Panels>
constexpr GemmKernels gemm_table() noexcept {
  return {
      .panel_cols = kTileCols,
      .tile_rows = kTileRows,
      .packed_bytes = packed_bytes<Panels>,
      .pack_right = pack_right<Panels>,
      .pack_left = pack_left<Panels>,
      .gemm = gemm<Panels>,
      .block_panels = block_panels<Panels>,
  };
}
